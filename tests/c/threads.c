/* Threads: stacks of any size, coroutines, cancellation, a fork from a small stack. */
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "check.h"

static SaCkptHandleT client;
static SaCkptCheckpointHandleT checkpoint;

static pthread_t started(void *(*function)(void *), void *argument, size_t stack) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    if (stack != 0)
        THAT(pthread_attr_setstacksize(&attributes, stack) == 0);
    THAT(pthread_create(&thread, &attributes, function, argument) == 0);
    pthread_attr_destroy(&attributes);
    return thread;
}

/* What a thread returned; it must end in half a minute. */
static void *ended(pthread_t thread) {
    struct timespec until;
    void *result = NULL;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    THAT(pthread_timedjoin_np(thread, &result, &until) == 0);
    return result;
}

/* --- stacks --- */

static void *make_calls(void *argument) {
    SaCkptSectionIdT section = section_of("1");
    SaCkptIOVectorElementT read = element("1", NULL, 0, 0);
    SaCkptCheckpointDescriptorT status;
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    SaVersionT version = {'B', 2, 2};
    SaCkptHandleT own = 0;
    (void)argument;
    OK(saCkptInitialize(&own, NULL, &version));
    OK(saCkptFinalize(own));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(own, SA_DISPATCH_ALL));
    OK(saCkptSectionOverwrite(checkpoint, &section, "small", 5));
    OK(saCkptCheckpointRead(checkpoint, &read, 1, NULL));
    THAT(read.readSize == 5 && memcmp(read.dataBuffer, "small", 5) == 0);
    OK(saCkptIOVectorElementDataFree(checkpoint, read.dataBuffer));
    OK(saCkptCheckpointStatusGet(checkpoint, &status));
    OK(saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    OK(saCkptSectionIterationNext(iteration, &descriptor));
    IS(SA_AIS_ERR_NO_SECTIONS, saCkptSectionIterationNext(iteration, &descriptor));
    OK(saCkptSectionIterationFinalize(iteration));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionDelete(checkpoint, &(SaCkptSectionIdT){1, (void *)"x"}));
    return NULL;
}

static void check_sizes(void) {
    size_t smallest = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    static const size_t more[] = {0, 8 << 10, 32 << 10, 48 << 10, 112 << 10, 128 << 10, 1 << 20};
    for (size_t which = 0; which < sizeof more / sizeof *more; which++)
        THAT(ended(started(make_calls, NULL, smallest + more[which])) == NULL);
}

/* Less between two stacks, and valgrind takes a change from one to the other for a large frame. */
enum { SMALL = 16 << 10, GUARD = 4 << 20, LARGE = 1 << 20 };
static ucontext_t outside, inside;
static void coroutine(void) { make_calls(NULL); }

/* A stack that is not the thread's: nothing is known of it, whatever its size. */
static void *leave_the_stack(void *memory) {
    THAT(getcontext(&inside) == 0);
    inside.uc_stack.ss_sp = memory;
    inside.uc_stack.ss_size = SMALL;
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    THAT(swapcontext(&outside, &inside) == 0);
    return NULL;
}

/* From main, whose stack is above it, and from a thread whose stack is below. */
static void check_coroutines(void) {
    char *memory = mmap(NULL, LARGE + GUARD + SMALL, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    THAT(memory != MAP_FAILED && mprotect(memory + LARGE, GUARD, PROT_NONE) == 0);
    leave_the_stack(memory + LARGE + GUARD);
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    THAT(pthread_attr_setstack(&attributes, memory, LARGE) == 0);
    THAT(pthread_create(&thread, &attributes, leave_the_stack, memory + LARGE + GUARD) == 0);
    pthread_attr_destroy(&attributes);
    THAT(ended(thread) == NULL);
    munmap(memory, LARGE + GUARD + SMALL);
}

static void *fork_here(void *argument) {
    SaCkptHandleT own = 77;
    SaVersionT version = {'B', 2, 2};
    int status = 0;
    (void)argument;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int wrong = saCkptFinalize(client) != SA_AIS_ERR_BAD_HANDLE;
        wrong |= saCkptInitialize(&own, NULL, &version) != SA_AIS_ERR_LIBRARY;
        _exit(wrong || own != 0);
    }
    THAT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return make_calls(NULL);
}

/* --- cancellation --- */

static int reached; /* by the thread that is to be cancelled */

static void wait_until_reached(void) {
    for (int tries = 0; tries < 30000 && !__atomic_load_n(&reached, __ATOMIC_ACQUIRE); tries++)
        usleep(1000);
    THAT(reached);
    reached = 0;
}

static void now_reached(void) { __atomic_store_n(&reached, 1, __ATOMIC_RELEASE); }

static void *dispatch_blocking(void *argument) {
    now_reached();
    OK(saCkptDispatch(*(SaCkptHandleT *)argument, SA_DISPATCH_BLOCKING));
    return NULL;
}

/* It may have begun or not, and wait or not: it ends, holds nothing, and the next one works. */
static void check_blocking_dispatch(size_t stack) {
    for (int number = 0; number < 20; number++) {
        pthread_t thread = started(dispatch_blocking, &client, stack);
        wait_until_reached();
        usleep((useconds_t)number * 500);
        THAT(pthread_cancel(thread) == 0);
        THAT(ended(thread) == PTHREAD_CANCELED);
    }
    pthread_t thread = started(dispatch_blocking, &client, stack);
    wait_until_reached();
    synchronizations = 0;
    OK(saCkptCheckpointSynchronizeAsync(checkpoint, 5));
    for (int tries = 0; tries < 3000 && *(volatile int *)&synchronizations < 1; tries++)
        usleep(10000);
    THAT(synchronizations == 1 && last_invocation == 5 && last_error == SA_AIS_OK);
    THAT(pthread_cancel(thread) == 0);
    THAT(ended(thread) == PTHREAD_CANCELED);
}

static void *call_although_cancelled(void *argument) {
    SaCkptSectionIdT section = section_of("1");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    THAT(pthread_cancel(pthread_self()) == 0);
    OK(saCkptSectionOverwrite(checkpoint, &section, "first", 5)); /* the thread says: not now */
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    (void)saCkptSectionOverwrite(checkpoint, &section, "second", 6);
    return argument;
}

static void check_pending_cancellation(size_t stack) {
    char found[10] = "";
    SaCkptIOVectorElementT read = element("1", found, sizeof found, 0);
    THAT(ended(started(call_although_cancelled, NULL, stack)) == PTHREAD_CANCELED);
    OK(saCkptCheckpointRead(checkpoint, &read, 1, NULL));
    THAT(read.readSize == 5 && memcmp(found, "first", 5) == 0);
}

/* A callback is the program's own: it may be cancelled, and may end its thread. */
static void never_returns(SaInvocationT invocation, SaAisErrorT error) {
    OK(error);
    now_reached();
    if (invocation == 1)
        pthread_exit(&reached);
    for (;;)
        pause();
}

static void check_callbacks(size_t stack) {
    SaCkptCallbacksT callbacks = {NULL, never_returns};
    SaVersionT version = {'B', 2, 2};
    SaCkptHandleT own = 0;
    OK(saCkptInitialize(&own, &callbacks, &version));
    SaCkptCheckpointHandleT mine = opened(own, "c-threads", NULL, READ | WRITE);
    OK(saCkptCheckpointSynchronizeAsync(mine, 1));
    pthread_t thread = started(dispatch_blocking, &own, stack);
    THAT(ended(thread) == &reached);
    reached = 0;
    thread = started(dispatch_blocking, &own, stack);
    wait_until_reached();
    OK(saCkptCheckpointSynchronizeAsync(mine, 2));
    wait_until_reached();
    THAT(pthread_cancel(thread) == 0);
    THAT(ended(thread) == PTHREAD_CANCELED);
    OK(saCkptFinalize(own));
}

static void begin(void) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ACTIVE_REPLICA);
    client = client_of(2, 2);
    checkpoint = opened(client, "c-threads", &attributes, CREATE | READ | WRITE);
    OK(create(checkpoint, "1", "data"));
}

void check_stacks(void) {
    begin();
    check_sizes();
    check_coroutines();
    OK(saCkptFinalize(client));
}

void check_cancellation(void) {
    size_t smallest = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    begin();
    for (int small = 0; small < 2; small++) {
        check_blocking_dispatch(small ? smallest : 0);
        check_pending_cancellation(small ? smallest : 0);
        check_callbacks(small ? smallest : 0);
    }
    make_calls(NULL);
    OK(saCkptFinalize(client));
}

void check_fork_from_a_small_stack(void) {
    begin();
    THAT(ended(started(fork_here, NULL, (size_t)sysconf(_SC_THREAD_STACK_MIN))) == NULL);
    make_calls(NULL);
    OK(saCkptFinalize(client));
}
