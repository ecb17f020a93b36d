/*
 * A process without descriptors: the first call of all, initializations, selection object and
 * callbacks answer NO_RESOURCES and say nothing on standard error; what is there goes on; with
 * descriptors again all of it works. And what an initialization takes.
 *
 *     RAFTCKPT_ENDPOINTS=... ./descriptors      exits with 1 if anything was wrong
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <saCkptTracking.h>

#include "check.h"

int checks, failures;
static int held[64], count;

static void take_all(void) {
    while (count < 64 && (held[count] = open("/dev/null", O_RDONLY)) >= 0)
        count++;
    THAT(count < 64);
}

static void leave(int number) {
    while (number-- > 0 && count > 0)
        close(held[--count]);
}

static int entries(const char *path) {
    int found = 0;
    DIR *directory = opendir(path);
    if (directory == NULL)
        return -1;
    while (readdir(directory) != NULL)
        found++;
    closedir(directory);
    return found;
}

static int settled(const char *path, int before, int more) {
    for (int tries = 0; tries < 3000 && entries(path) != before + more; tries++)
        usleep(10000);
    return entries(path) - before;
}

static SaAisErrorT initialized(SaCkptHandleT *client) {
    SaVersionT version = {'B', 2, 2};
    return saCkptInitialize(client, NULL, &version);
}

static void arrived(const SaCkptCheckpointHandleT checkpoint, SaCkptIOVectorElementT *vector,
                    SaUint32T elements) {
    (void)checkpoint;
    (void)vector;
    (void)elements;
}

static SaUint32T consumed(SaUint64T checkpoint, SaNameT *name, SaCkptIOVectorElementT *vector,
                          SaUint32T sections, void *cookie) {
    (void)checkpoint;
    (void)name;
    (void)vector;
    (void)sections;
    (void)cookie;
    return 0;
}

int main(void) {
    struct rlimit limit = {64, 64};
    SaCkptHandleT client = 77, other = 77;
    SaCkptCheckpointHandleT checkpoint = 0;
    SaSelectionObjectT descriptor;
    SaNameT name = {13, "c-descriptors"};
    SaCkptCheckpointCreationAttributesT attributes = {SA_CKPT_WR_ALL_REPLICAS, 0, 0, 1, 100, 0};
    SaCkptSectionIdT section = SA_CKPT_DEFAULT_SECTION_ID;
    setvbuf(stdout, NULL, _IOLBF, 0);
    THAT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    take_all();
    IS(SA_AIS_ERR_NO_RESOURCES, initialized(&client));
    THAT(client == 0);
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptFinalize(1));
    leave(count);
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptFinalize(1)); /* the interpreter runs */

    int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    OK(initialized(&client));
    THAT(settled("/proc/self/fd", descriptors, 3) == 3);
    THAT(settled("/proc/self/task", threads, 1) == 1);
    OK(initialized(&other));
    THAT(settled("/proc/self/fd", descriptors, 6) == 6);
    OK(saCkptSelectionObjectGet(other, &descriptor));
    THAT(settled("/proc/self/fd", descriptors, 8) == 8);
    OK(saCkptFinalize(other));
    THAT(settled("/proc/self/fd", descriptors, 3) == 3);
    THAT(settled("/proc/self/task", threads, 1) == 1);

    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, WAIT, &checkpoint));
    take_all();
    for (int left = 0; left < 6; left++) {
        if (left == 0) /* needs but two */
            IS(SA_AIS_ERR_NO_RESOURCES, saCkptSelectionObjectGet(client, &descriptor));
        other = 77;
        IS(SA_AIS_ERR_NO_RESOURCES, initialized(&other));
        THAT(other == 0);
        IS(SA_AIS_ERR_NO_RESOURCES, ncsCkptRegisterCkptArrivalCallback(client, arrived));
        IS(SA_AIS_ERR_NO_RESOURCES,
           clCkptImmediateConsumptionRegister(checkpoint, consumed, NULL));
        OK(saCkptSectionOverwrite(checkpoint, &section, "data", 4));
        leave(1);
    }
    leave(count);
    OK(saCkptSelectionObjectGet(client, &descriptor));
    OK(ncsCkptRegisterCkptArrivalCallback(client, arrived));
    IS(0, clCkptImmediateConsumptionRegister(checkpoint, consumed, NULL));
    OK(initialized(&other));
    OK(saCkptFinalize(other));
    OK(saCkptFinalize(client));
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
