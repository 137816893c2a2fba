"""Elementary functions with the same bits on every machine.

In: float64 arrays. Out: float64 arrays. ``np.exp`` and its kin go through vector libraries that differ between
processors in the last bit; a world drawn on one machine would not be the world drawn on another. What stands here uses
only operations that IEEE 754 rounds exactly (+ - * / sqrt, scaling by powers of two), one numpy call each, so that no
compiler can fuse two of them. Errors are at most a few units in the last place, and are tested.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# pi/2 and ln 2 in parts whose leading bits are few, so that k * part is exact (Cody and Waite 1980)
_LN2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_SQRT_HALF = 0.7071067811865476
_EXP = [1.0, 1.0]
_SIN, _COS = [1.0], [1.0]
for _k in range(2, 14):
    _EXP.append(_EXP[-1] / _k)
for _k in range(1, 9):
    _SIN.append(-_SIN[-1] / ((2 * _k) * (2 * _k + 1)))
    _COS.append(-_COS[-1] / ((2 * _k - 1) * (2 * _k)))
_LOG = [1.0 / (2 * k + 1) for k in range(12)]

# Wichura (1988), algorithm AS 241 (PPND16): percentage points of the normal distribution, relative error 1e-16
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_SIDE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip

# erfc(x) = t exp(-x^2) g(t) for x >= 0 with t = 2 / (2 + x): the Chebyshev series of g on [0, 1],
# computed with 40 digits
_ERFC = (
    1.1540674772329393, 0.3554369212704985, 0.06509515882878653, 0.003671142395836639, -0.0011128447433526325,
    -0.0001607582991537808, 3.278031574173137e-05, 5.442441645505016e-06, -1.5154665553171482e-06,
    -1.4297608181169865e-07, 8.234608827419493e-08, -1.2962846852306563e-09, -4.154721631015198e-09,
    6.34705827836281e-10, 1.4320822712256235e-10, -6.160390105204597e-11, 2.0612138554722796e-12,
    3.5714931488475964e-12, -8.586422843250741e-13, -6.145600213800953e-14, 7.418725748606691e-14,
    -1.2895042755130491e-14, -2.358726385615156e-15, 1.5729349380759055e-15, -2.27829662305669e-16,
    -6.312330459437382e-17, 3.5916763615545386e-17,
)  # fmt: skip


def _polynomial(coefficients: tuple[float, ...] | list[float], x: Array) -> Array:
    """Horner's rule; coefficients in ascending order."""
    out = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        out *= x
        out += c
    return out


def exp(x: Array | float) -> Array:
    """e to the x; 0 below -745, the largest number above 709.78."""
    v = np.clip(np.asarray(x, float), -745.0, 709.78)
    k = np.rint(v * 1.4426950408889634)
    r = (v - k * _LN2[0]) - k * _LN2[1]
    return np.ldexp(_polynomial(_EXP, r), k.astype(np.int32))


def log(x: Array | float) -> Array:
    """Natural logarithm; -inf at 0, NaN below."""
    v = np.asarray(x, float)
    usual = (v > 0) & (v < np.inf)
    m, e = np.frexp(np.where(usual, v, 1.0))
    low = m < _SQRT_HALF
    m, k = np.where(low, 2 * m, m), np.where(low, e - 1, e).astype(float)
    s = (m - 1) / (m + 1)
    out = k * _LN2[0] + (2 * s * _polynomial(_LOG, s * s) + k * _LN2[1])
    return out if usual.all() else np.where(usual, out, np.where(v == 0, -np.inf, np.where(v > 0, v, np.nan)))


def sincos(x: Array | float) -> tuple[Array, Array]:
    """Sine and cosine of angles up to a thousand turns [rad]."""
    v = np.asarray(x, float)
    k = np.rint(v * 0.6366197723675814)
    r = ((v - k * _HALF_PI[0]) - k * _HALF_PI[1]) - k * _HALF_PI[2]
    z = r * r
    s, c = r * _polynomial(_SIN, z), _polynomial(_COS, z)
    quarter = k.astype(np.int64) & 3
    sine = np.where(quarter & 1, c, s) * np.where(quarter & 2, -1.0, 1.0)
    cosine = np.where(quarter & 1, s, c) * np.where((quarter + 1) & 2, -1.0, 1.0)
    return sine, cosine


def normal_quantile(u: Array | float) -> Array:
    """Standard normal quantile of probabilities in (0, 1); algorithm AS 241."""
    p = np.atleast_1d(np.asarray(u, float))
    q = p - 0.5
    r = 0.180625 - q * q
    out = q * (_polynomial(_CENTRE[0], r) / _polynomial(_CENTRE[1], r))
    outer = np.flatnonzero(np.abs(q) > 0.425)
    if len(outer):
        side = q.reshape(-1)[outer]
        tail = np.sqrt(-log(np.where(side < 0, p.reshape(-1)[outer], 1 - p.reshape(-1)[outer])))
        near, far = tail - 1.6, tail - 5.0
        x = _polynomial(_SIDE[0], near) / _polynomial(_SIDE[1], near)
        beyond = tail > 5
        if beyond.any():
            x = np.where(beyond, _polynomial(_TAIL[0], far) / _polynomial(_TAIL[1], far), x)
        out.reshape(-1)[outer] = np.where(side < 0, -x, x)
    return out.reshape(np.shape(u))


def normal_cdf(x: Array | float) -> Array:
    """Standard normal distribution function."""
    z = np.minimum(np.abs(np.asarray(x, float)), 60.0) * _SQRT_HALF
    t = 2 / (2 + z)
    y = 4 * t - 2  # twice the Chebyshev argument 2 t - 1; Clenshaw's recurrence
    b, after = np.zeros_like(t), np.zeros_like(t)
    for c in _ERFC[:0:-1]:
        b, after = y * b - after + c, b
    upper = 0.5 * t * exp(-z * z) * (0.5 * (y * b) - after + 0.5 * _ERFC[0])
    return np.where(np.asarray(x) > 0, 1 - upper, upper)
