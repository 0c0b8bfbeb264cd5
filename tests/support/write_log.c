/* Preloaded into a process, logs in order whatever it does to the files below a folder.
 *
 * WATCHED_FOLDER is the folder, WRITE_LOG_TO the log, which lies elsewhere. Each call that succeeded is
 * one record: a letter, the file's inode, an offset or size, the length of what follows, and that itself
 * (bytes written, or paths, each ended by a zero). tests/support/power_cuts.py reads it.
 */
#include "watched_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>

struct __attribute__((packed)) record {
    char kind;
    uint64_t inode, offset, length;
};

static pthread_mutex_t in_order = PTHREAD_MUTEX_INITIALIZER;

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

static void append(const void *bytes, size_t length) {
    static int log = -1;
    if (log < 0)
        log = REAL(open)(getenv("WRITE_LOG_TO"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (REAL(write)(log, bytes, length) != (ssize_t)length)
        abort();
}

static void note(char kind, uint64_t inode, uint64_t offset, const void *bytes, size_t length) {
    struct record record = {kind, inode, offset, length};
    append(&record, sizeof record);
    append(bytes, length);
}

static void note_paths(char kind, uint64_t inode, const char *one, const char *other) {
    char paths[2 * PATH_MAX];
    int length = snprintf(paths, sizeof paths, "%s%c%s%c", one, 0, other ? other : "", 0);
    note(kind, inode, 0, paths, length);
}

/* Runs a call and notes it, if it succeeded, before any other call can be made. */
#define LOGGED(type, call, noting)                                                                           \
    pthread_mutex_lock(&in_order);                                                                           \
    type result = call;                                                                                      \
    int error = errno;                                                                                       \
    if (result >= 0)                                                                                         \
        noting;                                                                                              \
    pthread_mutex_unlock(&in_order);                                                                         \
    errno = error;                                                                                           \
    return result

static void note_opened(int fd, const char *path, int flags, int was_there) {
    if (!was_there)
        note_paths('C', inode_of(fd), path, NULL);
    else if (flags & O_TRUNC)
        note('T', inode_of(fd), 0, "", 0);
}

static int logged_open(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!is_below(path) || !(flags & (O_CREAT | O_TRUNC)))
        return real(path, flags, mode);
    int was_there = access(path, F_OK) == 0;
    LOGGED(int, real(path, flags, mode), note_opened(result, path, flags, was_there));
}

#define OPENED(name)                                                                                         \
    int name(const char *path, int flags, ...) {                                                             \
        va_list arguments;                                                                                   \
        va_start(arguments, flags);                                                                          \
        mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;                                       \
        va_end(arguments);                                                                                   \
        return logged_open(REAL(name), path, flags, mode);                                                   \
    }

OPENED(open)
OPENED(open64)

#define POSITIONED_WRITE(name, offset_type)                                                                  \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) {                             \
        if (!is_watched(fd))                                                                                 \
            return REAL(name)(fd, bytes, length, offset);                                                    \
        LOGGED(ssize_t, REAL(name)(fd, bytes, length, offset),                                               \
               note('W', inode_of(fd), offset, bytes, result));                                              \
    }

POSITIONED_WRITE(pwrite, off_t)
POSITIONED_WRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!is_watched(fd))
        return REAL(write)(fd, bytes, length);
    off_t offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    LOGGED(ssize_t, REAL(write)(fd, bytes, length), note('W', inode_of(fd), offset, bytes, result));
}

#define TRUNCATION(name, offset_type)                                                                        \
    int name(int fd, offset_type size) {                                                                     \
        if (!is_watched(fd))                                                                                 \
            return REAL(name)(fd, size);                                                                     \
        LOGGED(int, REAL(name)(fd, size), note('T', inode_of(fd), size, "", 0));                             \
    }

TRUNCATION(ftruncate, off_t)
TRUNCATION(ftruncate64, off64_t)

#define SYNCING(name)                                                                                        \
    int name(int fd) {                                                                                       \
        if (!is_watched(fd))                                                                                 \
            return REAL(name)(fd);                                                                           \
        LOGGED(int, REAL(name)(fd), note('S', inode_of(fd), 0, "", 0));                                      \
    }

SYNCING(fsync)
SYNCING(fdatasync)

int mkdir(const char *path, mode_t mode) {
    struct stat made;
    if (!is_below(path))
        return REAL(mkdir)(path, mode);
    LOGGED(int, REAL(mkdir)(path, mode), note_paths('D', stat(path, &made) ? 0 : made.st_ino, path, NULL));
}

int unlink(const char *path) {
    if (!is_below(path))
        return REAL(unlink)(path);
    LOGGED(int, REAL(unlink)(path), note_paths('U', 0, path, NULL));
}

int rename(const char *from, const char *to) {
    if (!is_below(from))
        return REAL(rename)(from, to);
    LOGGED(int, REAL(rename)(from, to), note_paths('R', 0, from, to));
}

int link(const char *from, const char *to) {
    if (!is_below(from))
        return REAL(link)(from, to);
    LOGGED(int, REAL(link)(from, to), note_paths('L', 0, from, to));
}
