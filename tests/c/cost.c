/*
 * What a call costs, to be compared with the same call from Python (cost.py does both in turn).
 *
 *     RAFTCKPT_ENDPOINTS=... ./cost CALLS      prints microseconds per call: wall and CPU
 */
#include "check.h"

int checks, failures;

static double of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

#define MEASURE(name, calls, call)                                                       \
    do {                                                                                 \
        double wall = of(CLOCK_MONOTONIC), cpu = of(CLOCK_PROCESS_CPUTIME_ID);           \
        for (int number = 0; number < (calls); number++)                                 \
            call;                                                                        \
        printf("%s %.2f %.2f\n", name, (of(CLOCK_MONOTONIC) - wall) / (calls),           \
               (of(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (calls));                          \
    } while (0)

int main(int argc, char **argv) {
    int calls = argc > 1 ? atoi(argv[1]) : 1000;
    SaVersionT version = {'B', 2, 2};
    SaCkptHandleT client = 0;
    SaCkptCheckpointHandleT checkpoint = 0;
    SaNameT name = {6, "c-cost"};
    SaCkptCheckpointCreationAttributesT attributes = {SA_CKPT_WR_ALL_REPLICAS, 0, 0, 1, 1000, 0};
    SaCkptSectionIdT section = SA_CKPT_DEFAULT_SECTION_ID;
    char data[100] = "", found[100];
    SaCkptIOVectorElementT read = {SA_CKPT_DEFAULT_SECTION_ID, found, sizeof found, 0, 0};
    OK(saCkptInitialize(&client, NULL, &version));
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, WAIT, &checkpoint));
    OK(saCkptSectionOverwrite(checkpoint, &section, data, sizeof data));
    MEASURE("dispatch", calls * 100, saCkptDispatch(client, SA_DISPATCH_ALL));
    MEASURE("overwrite", calls, OK(saCkptSectionOverwrite(checkpoint, &section, data, 100)));
    MEASURE("read", calls, OK(saCkptCheckpointRead(checkpoint, &read, 1, NULL)));
    OK(saCkptFinalize(client));
    return failures != 0;
}
