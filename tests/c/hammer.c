/*
 * Threads that hammer one client handle, one checkpoint handle and handles of their own, and check
 * every answer, while a timer interrupts whatever waits and children are forked that begin anew.
 * Each thread alone writes the section of its number, so it knows what must be read.
 *
 *     RAFTCKPT_ENDPOINTS=... ./hammer SECONDS THREADS
 *
 * Prints one line of JSON; exits with 1 after the first wrong answer of any thread.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "check.h"

int checks, failures;
static double seconds;
static SaCkptHandleT shared_client;
static SaCkptCheckpointHandleT shared_checkpoint;
static unsigned long calls, called_back, signals, children;

static void alarmed(int number) {
    (void)number;
    __atomic_add_fetch(&signals, 1, __ATOMIC_RELAXED);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static long resident_kib(void) {
    long pages = 0, ignored;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &ignored, &pages) != 2)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void synchronized(SaInvocationT invocation, SaAisErrorT error) {
    (void)invocation;
    OK(error);
    __atomic_add_fetch(&called_back, 1, __ATOMIC_RELAXED);
}

static SaCkptCheckpointHandleT open_in(SaCkptHandleT client) {
    SaNameT name = {8, "c-hammer"};
    SaCkptCheckpointCreationAttributesT attributes = {
        SA_CKPT_WR_ACTIVE_REPLICA, 64000, 0, 64, 1000, 16};
    SaCkptCheckpointHandleT checkpoint = 0;
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, WAIT, &checkpoint));
    return checkpoint;
}

static SaCkptHandleT initialized(void) {
    SaVersionT version = {'B', 2, 2};
    SaCkptCallbacksT callbacks = {NULL, synchronized};
    SaCkptHandleT client = 0;
    OK(saCkptInitialize(&client, &callbacks, &version));
    return client;
}

/* A generated section: created, found, deleted, its memory given back. */
static void passing_section(SaCkptCheckpointHandleT checkpoint) {
    SaCkptSectionIdT generated = SA_CKPT_GENERATED_SECTION_ID;
    SaCkptSectionCreationAttributesT attributes = {&generated, SA_TIME_END};
    OK(saCkptSectionCreate(checkpoint, &attributes, "passing", 7));
    SaCkptIOVectorElementT read = {generated, NULL, 0, 0, 0};
    OK(saCkptCheckpointRead(checkpoint, &read, 1, NULL));
    THAT(read.readSize == 7 && memcmp(read.dataBuffer, "passing", 7) == 0);
    OK(saCkptIOVectorElementDataFree(checkpoint, read.dataBuffer));
    OK(saCkptSectionDelete(checkpoint, &generated));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionDelete(checkpoint, &generated));
    OK(saCkptSectionIdFree(checkpoint, generated.id));
}

static void iterate(SaCkptCheckpointHandleT checkpoint, char own) {
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    SaAisErrorT rc;
    int found = 0;
    OK(saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    while ((rc = saCkptSectionIterationNext(iteration, &descriptor)) == SA_AIS_OK)
        found += descriptor.sectionId.idLen == 1 && descriptor.sectionId.id[0] == own;
    IS(SA_AIS_ERR_NO_SECTIONS, rc);
    THAT(found == 1);
    OK(saCkptSectionIterationFinalize(iteration));
}

static void *hammer(void *argument) {
    char own = (char)('0' + (long)argument);
    SaCkptSectionIdT section = {1, (SaUint8T *)&own};
    SaCkptSectionCreationAttributesT attributes = {&section, SA_TIME_END};
    SaCkptHandleT client = initialized();
    SaCkptCheckpointHandleT checkpoint = open_in(client);
    unsigned char data[1000], found[1000];
    double end = now() + seconds;
    OK(saCkptSectionCreate(shared_checkpoint, &attributes, "", 0));
    for (unsigned round = 0; now() < end && failures == 0; round++) {
        SaCkptCheckpointHandleT used = round % 2 ? shared_checkpoint : checkpoint;
        SaSizeT size = 1 + round * 7919u % sizeof data;
        memset(data, (int)(round ^ (unsigned)own), size);
        OK(saCkptSectionOverwrite(used, &section, data, size));
        SaCkptIOVectorElementT read = {section, found, sizeof found, 0, 0};
        OK(saCkptCheckpointRead(used, &read, 1, NULL));
        THAT(read.readSize == size && memcmp(data, found, size) == 0);
        data[0] = (unsigned char)~data[0];
        SaCkptIOVectorElementT write = {section, data, 1, 0, 0};
        OK(saCkptCheckpointWrite(used, &write, 1, NULL));
        OK(saCkptCheckpointRead(used, &read, 1, NULL));
        THAT(read.readSize == size && memcmp(data, found, size) == 0);
        __atomic_add_fetch(&calls, 4, __ATOMIC_RELAXED);
        if (round % 16 == 3) {
            passing_section(used);
            iterate(used, own);
        }
        if (round % 16 == 7) {
            SaCkptHandleT through = used == checkpoint ? client : shared_client;
            OK(saCkptCheckpointSynchronizeAsync(used, round));
            OK(saCkptDispatch(through, SA_DISPATCH_ALL));
        }
        if (round % 64 == 11) {
            OK(saCkptCheckpointClose(checkpoint));
            checkpoint = open_in(client);
        }
        if (round % 256 == 100) {
            OK(saCkptFinalize(client));
            IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(client, SA_DISPATCH_ALL));
            client = initialized();
            checkpoint = open_in(client);
        }
    }
    OK(saCkptFinalize(client));
    return NULL;
}

/* fork() in the middle of it all: the child has no handle of ours, and works with its own. */
static void child(void) {
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        failures = 0;
        alarm(60);
        signal(SIGALRM, SIG_DFL);
        SaCkptSectionIdT section = {1, (SaUint8T *)"x"};
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionOverwrite(shared_checkpoint, &section, "y", 1));
        SaCkptHandleT client = initialized();
        SaCkptCheckpointHandleT checkpoint = open_in(client);
        passing_section(checkpoint);
        OK(saCkptFinalize(client));
        fflush(stdout);
        _exit(failures != 0);
    }
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
    }
    THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    children++;
}

int main(int argc, char **argv) {
    seconds = argc > 1 ? atof(argv[1]) : 5;
    int count = argc > 2 ? atoi(argv[2]) : 8;
    pthread_t threads[64];
    long early = 0;
    if (count < 1 || count > 64)
        return 2;
    shared_client = initialized();
    shared_checkpoint = open_in(shared_client);
    double start = now();
    struct sigaction action = {.sa_handler = alarmed}; /* without SA_RESTART */
    struct itimerval timer = {{0, 5000}, {0, 5000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    for (long thread = 0; thread < count; thread++)
        pthread_create(&threads[thread], NULL, hammer, (void *)thread);
    while (now() < start + seconds && failures == 0) {
        if (early == 0 && now() > start + seconds / 3)
            early = resident_kib();
        child();
        usleep(100000);
    }
    for (int thread = 0; thread < count; thread++)
        pthread_join(threads[thread], NULL);
    long late = resident_kib();
    OK(saCkptFinalize(shared_client));
    printf("{\"calls\": %lu, \"called_back\": %lu, \"signals\": %lu, \"children\": %lu, "
           "\"failures\": %d, \"seconds\": %.1f, "
           "\"resident_kib_after_a_third\": %ld, \"resident_kib_at_the_end\": %ld}\n",
           calls, called_back, signals, children, failures, now() - start, early, late);
    return failures == 0 ? 0 : 1;
}
