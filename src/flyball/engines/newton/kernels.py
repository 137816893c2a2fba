"""What a step needs besides Newton: torques of the actuators before it, forces at the contacts after it.

In and out: device arrays of n worlds. One module, compiled once.
"""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046  (in a kernel, float(0.0) declares a variable; 0.0 a constant)

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def drive(
    ctrl: wp.array2d(dtype=float),
    joint_q: wp.array2d(dtype=float),
    joint_qd: wp.array2d(dtype=float),
    q_of: wp.array(dtype=int),
    qd_of: wp.array(dtype=int),
    moment: wp.array2d(dtype=float),
    ctrl_range: wp.array2d(dtype=float),
    gain: wp.array3d(dtype=float),
    bias: wp.array3d(dtype=float),
    limit: wp.array3d(dtype=float),
    tendon_of: wp.array(dtype=int),
    tendon_limit: wp.array3d(dtype=float),
    stiffness: wp.array(dtype=float),
    rest: wp.array(dtype=float),
    force: wp.array2d(dtype=float),
    joint_f: wp.array2d(dtype=float),
):
    """Torques as MuJoCo computes them: (g0 + g1 l + g2 v) u + b0 + b1 l + b2 v, limited, and passive joint forces."""
    w = wp.tid()
    nu = gain.shape[1]
    nv = moment.shape[1]
    for d in range(joint_f.shape[1]):
        joint_f[w, d] = 0.0
    for i in range(nu):
        length = float(0.0)
        speed = float(0.0)
        for d in range(nv):
            if moment[i, d] != 0.0:
                length += moment[i, d] * joint_q[w, q_of[d]]
                speed += moment[i, d] * joint_qd[w, qd_of[d]]
        u = wp.clamp(ctrl[w, i], ctrl_range[i, 0], ctrl_range[i, 1])
        f = (gain[w, i, 0] + gain[w, i, 1] * length + gain[w, i, 2] * speed) * u
        f += bias[w, i, 0] + bias[w, i, 1] * length + bias[w, i, 2] * speed
        force[w, i] = wp.clamp(f, limit[w, i, 0], limit[w, i, 1])
    for t in range(tendon_limit.shape[1]):  # the actuators of a tendon share its limit
        total = float(0.0)
        for i in range(nu):
            if tendon_of[i] == t:
                total += force[w, i]
        share = float(1.0)
        if total > tendon_limit[w, t, 1]:
            share = tendon_limit[w, t, 1] / total
        if total < tendon_limit[w, t, 0]:
            share = tendon_limit[w, t, 0] / total
        for i in range(nu):
            if tendon_of[i] == t:
                force[w, i] = force[w, i] * share
    for d in range(nv):
        tau = float(0.0)
        for i in range(nu):
            tau += moment[i, d] * force[w, i]
        if q_of[d] >= 0:
            tau += stiffness[d] * (rest[d] - joint_q[w, q_of[d]])
            joint_f[w, qd_of[d]] = tau


@wp.func
def _enters_box(p: wp.vec3, d: wp.vec3, half: wp.vec3):
    """Whether a ray meets a box around the origin."""
    near = float(-1.0e30)
    far = float(1.0e30)
    for k in range(3):
        if wp.abs(d[k]) < 1.0e-12:
            if wp.abs(p[k]) > half[k]:
                return False
        else:
            a = (-half[k] - p[k]) / d[k]
            b = (half[k] - p[k]) / d[k]
            near = wp.max(near, wp.min(a, b))
            far = wp.min(far, wp.max(a, b))
    return far >= wp.max(near, 0.0)


@wp.func
def _enters_sphere(p: wp.vec3, d: wp.vec3, radius: float):
    """Whether a ray of unit direction meets a sphere around the origin."""
    b = wp.dot(p, d)
    c = wp.dot(p, p) - radius * radius
    if c <= 0.0:
        return True
    return b < 0.0 and b * b >= c


@wp.kernel
def tally(
    count: wp.array(dtype=int),
    shape0: wp.array(dtype=int),
    shape1: wp.array(dtype=int),
    point0: wp.array(dtype=wp.vec3),
    normal: wp.array(dtype=wp.vec3),
    wrench: wp.array(dtype=wp.spatial_vector),
    shape_body: wp.array(dtype=int),
    shape_world: wp.array(dtype=int),
    body_q: wp.array(dtype=wp.transform),
    body_com: wp.array(dtype=wp.vec3),
    bodies: int,
    pair: wp.array2d(dtype=int),
    site_body: wp.array(dtype=int),
    site_kind: wp.array(dtype=int),
    site_size: wp.array(dtype=wp.vec3),
    site_pose: wp.array(dtype=wp.transform),
    out: wp.array2d(dtype=float),
):
    """Wrenches of body pairs (6 columns each), then touch sensors (1 each). A contact without force adds nothing."""
    c = wp.tid()
    if c >= count[0]:
        return
    s0 = shape0[c]
    s1 = shape1[c]
    if s0 < 0 or s1 < 0:
        return
    f = wp.spatial_top(wrench[c])  # on the body of shape 0
    if wp.length(f) == 0.0:
        return
    b0 = shape_body[s0]
    b1 = shape_body[s1]
    w = wp.max(shape_world[s0], shape_world[s1])
    com0 = wp.vec3(0.0)
    com1 = wp.vec3(0.0)
    p = point0[c]
    l0 = int(-1)
    l1 = int(-1)
    if b0 >= 0:
        com0 = wp.transform_point(body_q[b0], body_com[b0])
        p = wp.transform_point(body_q[b0], p)
        l0 = b0 - w * bodies
    if b1 >= 0:
        com1 = wp.transform_point(body_q[b1], body_com[b1])
        l1 = b1 - w * bodies
    for k in range(pair.shape[0]):
        on = wp.vec3(0.0)
        turn = wp.vec3(0.0)
        if pair[k, 0] == l1 and pair[k, 1] == l0:
            on = f
            turn = wp.cross(p - com0, f)
        elif pair[k, 0] == l0 and pair[k, 1] == l1:
            on = -f
            turn = -wp.cross(p - com1, f)
        for j in range(3):
            wp.atomic_add(out, w, 6 * k + j, on[j])
            wp.atomic_add(out, w, 6 * k + 3 + j, turn[j])
    for k in range(site_body.shape[0]):
        away = wp.vec3(0.0)  # from the sensor's body to what it touches; newton's normal points from shape 0 to shape 1
        if site_body[k] == l0:
            away = normal[c]
        elif site_body[k] == l1:
            away = -normal[c]
        else:
            continue
        frame = site_pose[k]
        if site_body[k] >= 0:
            frame = wp.transform_multiply(body_q[w * bodies + site_body[k]], frame)
        inverse = wp.transform_inverse(frame)
        at = wp.transform_point(inverse, p)
        ray = wp.transform_vector(inverse, away)
        inside = bool(False)
        if site_kind[k] == 0:
            inside = _enters_sphere(at, ray, site_size[k][0])
        else:
            inside = _enters_box(at, ray, site_size[k])
        if inside:
            wp.atomic_add(out, w, 6 * pair.shape[0] + k, wp.abs(wp.dot(f, normal[c])))


@wp.kernel(module="unique", enable_backward=True)
def torque(
    of_q: wp.array2d(dtype=float),
    of_v: wp.array2d(dtype=float),
    of_u: wp.array2d(dtype=float),
    constant: wp.array(dtype=float),
    q: wp.array2d(dtype=float),
    v: wp.array2d(dtype=float),
    u: wp.array2d(dtype=float),
    out: wp.array2d(dtype=float),
):
    """Joint torques where no actuator is at a limit: linear in position, velocity and control."""
    w, d = wp.tid()
    total = constant[d]
    for j in range(of_q.shape[1]):
        total += of_q[d, j] * q[w, j] + of_v[d, j] * v[w, j]
    for i in range(of_u.shape[1]):
        total += of_u[d, i] * u[w, i]
    out[w, d] = total
