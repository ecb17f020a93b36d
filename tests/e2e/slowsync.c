/* Preloaded: a disk whose syncs take as many milliseconds as the file SLOW_SYNC_MS says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_disk(void)
{
    const char *path = getenv("SLOW_SYNC_MS");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    int ms = 0;

    if (file == NULL)
        return;
    if (fscanf(file, "%d", &ms) == 1 && ms > 0)
        usleep((useconds_t)ms * 1000);
    fclose(file);
}

int fdatasync(int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

    wait_for_disk();
    return next(fd);
}

int fsync(int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");

    wait_for_disk();
    return next(fd);
}
