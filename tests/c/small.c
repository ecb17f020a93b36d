/*
 * Threads with small stacks that are cancelled while they call, as they like to be in SA Forum
 * programs. Each writes numbers to a section of its own and reads them back; main cancels one after
 * the other wherever it is, looks what became of its last write, and starts it again. Among them
 * are threads in saCkptDispatch(SA_DISPATCH_BLOCKING): no callback may be lost with one, and a
 * second handle of the checkpoint must be told of each write, once.
 *
 *     RAFTCKPT_ENDPOINTS=... ./small SECONDS THREADS STACK      STACK in bytes; 0: the smallest
 *
 * Prints one line of JSON; exits with 1 if anything was wrong.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>

#include <saCkpt_B_02_03.h>

#include "check.h"

int checks, failures;

enum { THREADS_MAX = 64 };
static struct writer {
    char id;
    unsigned attempted, acknowledged, done; /* numbers, and how many writes there were */
} writers[THREADS_MAX];
static SaCkptHandleT client;
static SaCkptCheckpointHandleT checkpoint, reader;
static unsigned long writes, wanted, called_back, tracked, cancelled[2];
static int stopping;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void synchronized(SaInvocationT invocation, SaAisErrorT error) {
    (void)invocation;
    OK(error);
    __atomic_add_fetch(&called_back, 1, __ATOMIC_RELAXED);
}

static void track(SaCkptCheckpointHandleT to, SaCkptIOVectorElementT *vector, SaUint32T count) {
    THAT(to == reader); /* all is written through the other handle */
    THAT(count == 1 && vector->sectionId.idLen == 1 && vector->dataSize == sizeof(unsigned));
    __atomic_add_fetch(&tracked, 1, __ATOMIC_RELAXED);
}

static unsigned number_in(char *id) {
    unsigned found = 0;
    SaCkptIOVectorElementT read = {{1, (SaUint8T *)id}, &found, sizeof found, 0, 0};
    OK(saCkptCheckpointRead(checkpoint, &read, 1, NULL));
    THAT(read.readSize == sizeof found);
    return found;
}

static void *write_on(void *argument) {
    struct writer *self = argument;
    SaCkptSectionIdT section = {1, (SaUint8T *)&self->id};
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        unsigned number = ++self->attempted;
        OK(saCkptSectionOverwrite(checkpoint, &section, &number, sizeof number));
        self->acknowledged = number;
        self->done++; /* no call in between: a thread is not cancelled here */
        THAT(number_in(&self->id) == number);
        __atomic_add_fetch(&writes, 1, __ATOMIC_RELAXED);
        if (number % 16 == 1) {
            /* counted first: a thread may be cancelled when a call begins, not when it ends */
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
            OK(saCkptCheckpointSynchronizeAsync(checkpoint, number));
            __atomic_add_fetch(&wanted, 1, __ATOMIC_RELAXED);
            pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
        }
    }
    return NULL;
}

static void *dispatch_on(void *argument) {
    (void)argument;
    OK(saCkptDispatch(client, SA_DISPATCH_BLOCKING));
    return NULL;
}

/* The first call of the process, which starts the interpreter, comes from a small stack, too. */
static void *begin(void *argument) {
    SaVersionT version = {'B', 2, 3};
    SaCkptCallbacksT_2 callbacks = {NULL, synchronized, track};
    SaNameT name = {7, "c-small"};
    SaCkptCheckpointCreationAttributesT attributes = {
        SA_CKPT_WR_ACTIVE_REPLICA, 64000, 0, THREADS_MAX, 1000, 16};
    OK(saCkptInitialize_2(&client, &callbacks, &version));
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, WAIT, &checkpoint));
    OK(saCkptCheckpointOpen(client, &name, NULL, READ, WAIT, &reader));
    return argument;
}

static void *(*role_of(int number))(void *) { return number % 4 == 3 ? dispatch_on : write_on; }

static pthread_t started(void *(*function)(void *), struct writer *writer, size_t stack) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    THAT(pthread_attr_setstacksize(&attributes, stack) == 0);
    THAT(pthread_create(&thread, &attributes, function, writer) == 0);
    pthread_attr_destroy(&attributes);
    return thread;
}

/* Whether the thread was cancelled; a thread that does not end in half a minute never does. */
static int joined(pthread_t thread) {
    struct timespec until;
    void *result = NULL;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    int rc = pthread_timedjoin_np(thread, &result, &until);
    THAT(rc == 0);
    if (rc != 0) {
        printf("a thread does not end: %s\n", strerror(rc));
        _exit(1);
    }
    return result == PTHREAD_CANCELED;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 5;
    int count = argc > 2 ? atoi(argv[2]) : 16;
    size_t stack = argc > 3 ? (size_t)atol(argv[3]) : 0;
    pthread_t threads[THREADS_MAX];
    if (count < 4 || count > THREADS_MAX)
        return 2;
    if (stack == 0)
        stack = (size_t)sysconf(_SC_THREAD_STACK_MIN);

    THAT(!joined(started(begin, NULL, stack)));
    unsigned zero = 0;
    for (int number = 0; number < count; number++) {
        writers[number].id = (char)('0' + number);
        SaCkptSectionIdT section = {1, (SaUint8T *)&writers[number].id};
        SaCkptSectionCreationAttributesT creation = {&section, SA_TIME_END};
        OK(saCkptSectionCreate(checkpoint, &creation, &zero, sizeof zero));
    }
    OK(saCkptTrack(client));
    for (int number = 0; number < count; number++)
        threads[number] = started(role_of(number), &writers[number], stack);
    double start = now();
    for (unsigned round = 0; now() < start + seconds && failures == 0; round++) {
        int number = (int)(round * 7 % (unsigned)count);
        struct writer *writer = &writers[number];
        usleep(1000 + round * 7919 % 9000); /* hits other places of a call each time */
        THAT(pthread_cancel(threads[number]) == 0);
        THAT(joined(threads[number]));
        cancelled[role_of(number) == dispatch_on]++;
        if (role_of(number) == write_on) {
            /* the last write happened as a whole or not at all */
            unsigned found = number_in(&writer->id);
            THAT(found == writer->acknowledged || found == writer->attempted);
        }
        threads[number] = started(role_of(number), &writers[number], stack);
    }
    __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
    for (int number = 0; number < count; number++)
        if (role_of(number) == write_on)
            THAT(!joined(threads[number]));
    unsigned long done = 0;
    for (int number = 0; number < count; number++)
        done += writers[number].done;
    for (int tries = 0; tries < 3000; tries++) {
        if (__atomic_load_n(&called_back, __ATOMIC_RELAXED) == wanted &&
            __atomic_load_n(&tracked, __ATOMIC_RELAXED) >= done)
            break;
        usleep(10000);
    }
    THAT(__atomic_load_n(&called_back, __ATOMIC_RELAXED) == wanted);
    THAT(tracked == done);
    OK(saCkptFinalize(client)); /* which ends the dispatchers that were not cancelled */
    for (int number = 0; number < count; number++)
        if (role_of(number) == dispatch_on)
            THAT(!joined(threads[number]));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(client, SA_DISPATCH_ALL));
    printf("{\"writes\": %lu, \"called_back\": %lu, \"tracked\": %lu, \"cancelled_writers\": %lu, "
           "\"cancelled_dispatchers\": %lu, \"stack\": %zu, \"failures\": %d, \"seconds\": %.1f}\n",
           writes, called_back, tracked, cancelled[0], cancelled[1], stack, failures, now() - start);
    return failures == 0 ? 0 : 1;
}
