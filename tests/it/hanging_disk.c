// A disk that hangs, loaded into a process before libc: while the file named by HANG exists, writes and syncs of files
// whose path has HANG_WITHIN in it do not return.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static void hang(int fd) {
    const char *file = getenv("HANG");
    const char *within = getenv("HANG_WITHIN");
    char link[64];
    char path[4096];
    if (file == NULL || within == NULL || access(file, F_OK) != 0) {
        return;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof path - 1);
    if (bytes < 0) {
        return;
    }
    path[bytes] = '\0';
    while (strstr(path, within) != NULL && access(file, F_OK) == 0) {
        usleep(10 * 1000);
    }
}

int fdatasync(int fd) {
    hang(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    hang(fd);
    return (ssize_t)syscall(SYS_pwrite64, fd, bytes, count, offset);
}
