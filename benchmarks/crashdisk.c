/* Watches what a process does to the files below one folder, and can cut it short.

   Loaded with LD_PRELOAD, it stands between a program (Python and the SQLite inside it alike) and the C library. It
   appends one record per change (create, write, truncate, fsync, rename, link, unlink, mkdir, rmdir) to a trace, and at
   a chosen change it can kill the process or make the call fail. crashdisk.py reads the traces.

   Settings lie in a small file that is mapped, shared by all processes of one run: the path is given to crashdisk_arm()
   or in the environment variable CRASHDISK, so that worker processes are watched as well. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, WRITE = 4, SYNC = 8, RENAME = 16, UNLINK = 32 }; /* kinds of call that can fail */

struct settings { /* crashdisk.py packs this */
  uint64_t count;    /* calls so far, in all processes */
  uint64_t kill_at;  /* the call before which (in a write: in the middle of which) it is killed; 0: never */
  uint64_t fail_at;  /* the call that fails; 0: none */
  uint64_t failed;   /* how many did */
  int32_t error;     /* with this errno */
  int32_t kinds;     /* only calls of these kinds */
  int32_t lasting;   /* so do all later ones of these kinds */
  int32_t process;   /* whom to kill; those it started notice */
  char root[PATH_MAX], trace[PATH_MAX];
};

struct record { /* followed by the two texts or the data */
  uint64_t op, thread, inode, other, offset, n1, n2;
};

static struct settings *set;
static int trace = -1;
static size_t root_length;

static void unmodelled(const char *what) {
  dprintf(2, "crashdisk: %s is not modelled\n", what);
  abort();
}

int crashdisk_arm(const char *path) {
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  void *at = mmap(0, sizeof *set, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (at == MAP_FAILED) return -1;
  struct settings *s = at;
  trace = -1;
  if (s->trace[0]) {
    fd = syscall(SYS_openat, AT_FDCWD, s->trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    trace = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
    syscall(SYS_close, fd);
  }
  root_length = strlen(s->root);
  set = s;
  return 0;
}

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CRASHDISK");
  if (path && crashdisk_arm(path)) unmodelled("an unreadable settings file");
}

static void note(int op, uint64_t inode, uint64_t other, uint64_t offset, const void *a, size_t na, const void *b,
                 size_t nb) {
  if (trace < 0) return;
  struct record r = {op, syscall(SYS_gettid), inode, other, offset, na, nb};
  struct iovec v[] = {{&r, sizeof r}, {(void *)a, na}, {(void *)b, nb}};
  if (syscall(SYS_writev, trace, v, 3) != (ssize_t)(sizeof r + na + nb)) unmodelled("a full trace");
}

void crashdisk_mark(const char *text) { /* something was acknowledged */
  if (set) note('M', 0, 0, 0, text, strlen(text), 0, 0);
}

static void die(void) {
  kill(set->process, SIGKILL);
  for (;;) pause();
}

/* Counts a call. 1: it goes on, 0: it fails, -1: it is to be killed in the middle. */
static int turn(int kind) {
  uint64_t n = __atomic_add_fetch(&set->count, 1, __ATOMIC_SEQ_CST);
  if (n == set->kill_at) {
    if (kind == WRITE) return -1;
    die();
  }
  if (set->fail_at && (kind & set->kinds) && (n == set->fail_at || (set->lasting && n > set->fail_at))) {
    __atomic_add_fetch(&set->failed, 1, __ATOMIC_SEQ_CST);
    errno = set->error;
    return 0;
  }
  return 1;
}

static int below(const char *path) {
  return !strncmp(path, set->root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int fd_path(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, out, PATH_MAX - 1);
  if (n < 0) return 0;
  out[n] = 0;
  return 1;
}

static int watched(int fd) {
  char path[PATH_MAX];
  return set && fd != trace && fd_path(fd, path) && below(path);
}

static uint64_t inode_of(int fd) {
  struct stat s;
  return fstat(fd, &s) ? 0 : s.st_ino;
}

struct place { /* a name in a folder */
  uint64_t folder;
  char name[NAME_MAX + 1];
};

static int locate(int at, const char *path, struct place *p) {
  if (!set || !path || !*path) return 0;
  int saved = errno, ok = 0;
  char text[2 * PATH_MAX], folder[PATH_MAX];
  struct stat s;
  if (path[0] == '/') {
    snprintf(text, sizeof text, "%s", path);
  } else {
    if (at == AT_FDCWD ? !getcwd(folder, sizeof folder) : !fd_path(at, folder)) return 0;
    snprintf(text, sizeof text, "%s/%s", folder, path);
  }
  for (size_t n = strlen(text); n > 1 && text[n - 1] == '/';) text[--n] = 0;
  char *slash = strrchr(text, '/');
  *slash = 0;
  if (strlen(slash + 1) <= NAME_MAX && realpath(*text ? text : "/", folder) && below(folder) && !stat(folder, &s)) {
    p->folder = s.st_ino;
    strcpy(p->name, slash + 1);
    ok = 1;
  }
  errno = saved;
  return ok;
}

/* ---- opening */

static int open_at(int at, const char *path, int flags, mode_t mode) {
  struct place p;
  if (!locate(at, path, &p)) return syscall(SYS_openat, at, path, flags, mode);
  struct stat s;
  int there = !fstatat(at, path, &s, 0);
  if ((flags & O_TMPFILE) == O_TMPFILE) unmodelled("O_TMPFILE");
  if (flags & (O_SYNC | O_DSYNC)) unmodelled("O_SYNC");
  if (!turn(!there && flags & O_CREAT ? CREATE : OPEN)) return -1;
  int fd = syscall(SYS_openat, at, path, flags, mode);
  if (fd >= 0 && !there) note('C', inode_of(fd), p.folder, 0, p.name, strlen(p.name), 0, 0);
  if (fd >= 0 && there && flags & O_TRUNC && s.st_size) note('T', inode_of(fd), 0, 0, 0, 0, 0, 0);
  return fd;
}

#define MODE                                                  \
  mode_t mode = 0;                                            \
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {  \
    va_list v;                                                \
    va_start(v, flags);                                       \
    mode = va_arg(v, mode_t);                                 \
    va_end(v);                                                \
  }
int open(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }

/* ---- contents */

static ssize_t put(int fd, const void *data, size_t n, off_t at, int positioned) {
  if (!watched(fd)) return positioned ? syscall(SYS_pwrite64, fd, data, n, at) : syscall(SYS_write, fd, data, n);
  int go = turn(WRITE);
  if (!go) {
    /* The call that fails writes the first half: a short write is what a disk that fills up gives. */
    if (set->error != ENOSPC || n < 2 || __atomic_load_n(&set->failed, __ATOMIC_SEQ_CST) != 1) return -1;
    n /= 2;
  }
  if (go < 0) n /= 2;
  ssize_t done = positioned ? syscall(SYS_pwrite64, fd, data, n, at) : syscall(SYS_write, fd, data, n);
  if (go < 0) die();
  if (done > 0) note('W', inode_of(fd), 0, positioned ? at : lseek(fd, 0, SEEK_CUR) - done, data, done, 0, 0);
  return done;
}

ssize_t write(int fd, const void *data, size_t n) { return put(fd, data, n, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return put(fd, data, n, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return put(fd, data, n, at, 1); }

static ssize_t put_many(int fd, const struct iovec *v, int count, off_t at, int positioned) {
  ssize_t done = 0;
  for (int i = 0; i < count; i++) {
    ssize_t n = put(fd, v[i].iov_base, v[i].iov_len, at + done, positioned);
    if (n < 0) return done ? done : -1;
    done += n;
    if ((size_t)n < v[i].iov_len) break;
  }
  return done;
}

ssize_t writev(int fd, const struct iovec *v, int count) {
  return watched(fd) ? put_many(fd, v, count, 0, 0) : syscall(SYS_writev, fd, v, count);
}
ssize_t pwritev(int fd, const struct iovec *v, int count, off_t at) {
  return watched(fd) ? put_many(fd, v, count, at, 1) : syscall(SYS_pwritev, fd, v, count, at, 0);
}
ssize_t pwritev64(int fd, const struct iovec *v, int count, off64_t at) { return pwritev(fd, v, count, at); }

int ftruncate(int fd, off_t size) {
  if (!watched(fd)) return syscall(SYS_ftruncate, fd, size);
  if (!turn(WRITE)) return -1;
  int done = syscall(SYS_ftruncate, fd, size);
  if (!done) note('T', inode_of(fd), 0, size, 0, 0, 0, 0);
  return done;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int sync_fd(int fd, int call) {
  if (!watched(fd)) return syscall(call, fd);
  if (turn(SYNC) == 0) return -1;
  note('S', inode_of(fd), 0, 0, 0, 0, 0, 0);
  int done = syscall(call, fd);
  if (!done) note('s', inode_of(fd), 0, 0, 0, 0, 0, 0);
  return done;
}
int fsync(int fd) { return sync_fd(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_fd(fd, SYS_fdatasync); }

ssize_t sendfile(int out, int in, off_t *at, size_t n) {
  if (watched(out)) { errno = EINVAL; return -1; } /* Python then copies by read and write */
  return syscall(SYS_sendfile, out, in, at, n);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) { return sendfile(out, in, at, n); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t n, unsigned flags) {
  if (watched(out)) unmodelled("copy_file_range");
  return syscall(SYS_copy_file_range, in, a, out, b, n, flags);
}
int fallocate(int fd, int mode, off_t at, off_t n) {
  if (watched(fd)) unmodelled("fallocate");
  return syscall(SYS_fallocate, fd, mode, at, n);
}
int posix_fallocate(int fd, off_t at, off_t n) { return fallocate(fd, 0, at, n) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t n) { return posix_fallocate(fd, at, n); }

void *mmap(void *address, size_t n, int protection, int flags, int fd, off_t at) {
  char path[PATH_MAX];
  /* SQLite's index of the log is shared memory in a file: rebuilt by whoever comes first, so its bytes do not matter. */
  if (set && fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && fd_path(fd, path) && below(path) &&
      (strlen(path) < 4 || strcmp(path + strlen(path) - 4, "-shm")))
    unmodelled("a writable mapping");
  return (void *)syscall(SYS_mmap, address, n, protection, flags, fd, at);
}
void *mmap64(void *address, size_t n, int protection, int flags, int fd, off64_t at) {
  return mmap(address, n, protection, flags, fd, at);
}

/* ---- names */

static int rename_at(int a, const char *from, int b, const char *to, unsigned flags) {
  struct place p, q;
  int inside = locate(a, from, &p), into = locate(b, to, &q);
  if (!inside && !into) return syscall(SYS_renameat2, a, from, b, to, flags);
  if (inside != into || flags) unmodelled("a rename across the watched folder's border");
  if (!turn(RENAME)) return -1;
  struct stat s;
  if (fstatat(a, from, &s, AT_SYMLINK_NOFOLLOW)) return -1;
  int done = syscall(SYS_renameat2, a, from, b, to, flags);
  if (!done) {
    struct place pair[2] = {p, q};
    char names[2 * sizeof p.name + 2];
    size_t n = snprintf(names, sizeof names, "%s/%s", pair[0].name, pair[1].name);
    note('R', p.folder, q.folder, s.st_ino, names, n, 0, 0);
  }
  return done;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return rename_at(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned f) { return rename_at(a, from, b, to, f); }

int linkat(int a, const char *from, int b, const char *to, int flags) {
  struct place q;
  if (!locate(b, to, &q)) return syscall(SYS_linkat, a, from, b, to, flags);
  if (!turn(CREATE)) return -1;
  struct stat s;
  int done = fstatat(a, from, &s, 0) ? -1 : syscall(SYS_linkat, a, from, b, to, flags);
  if (!done) note('L', s.st_ino, q.folder, 0, q.name, strlen(q.name), 0, 0);
  return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlinkat(const char *text, int at, const char *path) {
  struct place p;
  if (locate(at, path, &p)) unmodelled("a symbolic link");
  return syscall(SYS_symlinkat, text, at, path);
}
int symlink(const char *text, const char *path) { return symlinkat(text, AT_FDCWD, path); }

int unlinkat(int at, const char *path, int flags) {
  struct place p;
  if (!locate(at, path, &p)) return syscall(SYS_unlinkat, at, path, flags);
  struct stat s;
  if (fstatat(at, path, &s, AT_SYMLINK_NOFOLLOW)) return -1;
  if (!turn(UNLINK)) return -1;
  int done = syscall(SYS_unlinkat, at, path, flags);
  if (!done) note('U', s.st_ino, p.folder, 0, p.name, strlen(p.name), 0, 0);
  return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
  struct place p;
  struct stat s;
  if (!locate(at, path, &p)) return syscall(SYS_mkdirat, at, path, mode);
  if (!fstatat(at, path, &s, 0)) { errno = EEXIST; return -1; }
  if (!turn(CREATE)) return -1;
  int done = syscall(SYS_mkdirat, at, path, mode);
  if (!done && !fstatat(at, path, &s, 0)) note('D', s.st_ino, p.folder, 0, p.name, strlen(p.name), 0, 0);
  return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
