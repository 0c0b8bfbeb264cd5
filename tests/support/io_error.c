/* Preloaded into a process, lets a call on a file below a folder fail, as a dying card does.
 *
 * WATCHED_FOLDER is the folder, IO_ERROR_OF is "write", "fsync" or "fsync of a folder", IO_ERROR_AT says
 * which call of that kind is the first to fail, from 1; with IO_ERROR_FOR_GOOD=1 all later ones, of any kind,
 * fail too. What fails does nothing, and says EIO.
 */
#include "watched_files.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int fails(int fd, const char *kind) {
    static long calls;
    static int broken;
    if (!is_watched(fd))
        return 0;
    pthread_mutex_lock(&one_at_a_time);
    int fails_now = broken;
    if (strcmp(kind, getenv("IO_ERROR_OF")) == 0 && ++calls == atol(getenv("IO_ERROR_AT"))) {
        fails_now = 1;
        broken = strcmp(getenv("IO_ERROR_FOR_GOOD"), "1") == 0;
    }
    pthread_mutex_unlock(&one_at_a_time);
    if (fails_now)
        errno = EIO;
    return fails_now;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return fails(fd, "write") ? -1 : REAL(write)(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return fails(fd, "write") ? -1 : REAL(pwrite)(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return fails(fd, "write") ? -1 : REAL(pwrite64)(fd, bytes, length, offset);
}

static const char *kind_of_sync(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISDIR(found.st_mode) ? "fsync of a folder" : "fsync";
}

int fsync(int fd) { return fails(fd, kind_of_sync(fd)) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return fails(fd, kind_of_sync(fd)) ? -1 : REAL(fdatasync)(fd); }
