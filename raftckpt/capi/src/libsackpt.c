/*
 * The C half of libSaCkpt.so: the calls of the SA Forum Checkpoint Service with the standard's
 * ABI, in front of a Python interpreter that runs inside the calling process.
 *
 * It owns what only C can do: starting the interpreter, the stack that it needs, cancellation,
 * calling back, names, out-parameters that are NULL, children made by fork(), and SIGPIPE. What a
 * call means is decided by raftckpt.saf, which binding.py reaches; cffi generates the glue between
 * the two halves from bridge.h.
 *
 * This text is compiled inside the file cffi generates, which includes Python.h first. For each
 * py_ function of bridge.h there is a call_ function of the same arguments (build.py writes them),
 * through which alone Python is entered.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* --- the interpreter ------------------------------------------------------------------------ */

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static int started;          /* 0: not yet, 1: runs, -1: failed for good; written under starting */
static volatile int unclear; /* a thread is between these states */
static int ours;             /* the interpreter was started here, not by a Python program */
static volatile int in_child; /* forked, and Python cannot be used in this process */

#define VERSION_TEXT_OF(major, minor) #major "." #minor "."
#define VERSION_TEXT(major, minor) VERSION_TEXT_OF(major, minor)
#define BUILT_FOR VERSION_TEXT(PY_MAJOR_VERSION, PY_MINOR_VERSION)

/* dl_iterate_phdr(): a libpython of another version than ours ends the search. */
static int is_foreign(struct dl_phdr_info *object, size_t size, void *found) {
    int major, minor;
    const char *base = strrchr(object->dlpi_name, '/');
    (void)size;
    base = base != NULL ? base + 1 : object->dlpi_name;
    if (sscanf(base, "libpython%d.%d", &major, &minor) != 2 ||
        (major == PY_MAJOR_VERSION && minor == PY_MINOR_VERSION))
        return 0;
    *(const char **)found = object->dlpi_name;
    return 1;
}

/*
 * A process can hold one version of Python: of two, each would meet the other's symbols. Which one
 * ours are bound to is asked first, because a python executable may have them without a library.
 */
static int another_python(void) {
    const char *found = Py_GetVersion();
    if (strncmp(found, BUILT_FOR, strlen(BUILT_FOR)) == 0) {
        found = NULL;
        (void)dl_iterate_phdr(is_foreign, &found);
        if (found == NULL)
            return 0;
    }
    fprintf(stderr,
            "libSaCkpt: this process has another Python (%.*s), the library is for %.*s: run "
            "'raftckpt saf-library install' with that Python, or use it in a process without\n",
            (int)strcspn(found, " "), found, (int)strlen(BUILT_FOR) - 1, BUILT_FOR);
    return -1;
}

/*
 * Modules such as msgpack's use libpython's symbols without linking it. A program that loaded us
 * with dlopen(RTLD_LOCAL) hides them, so make them global.
 */
static void publish_libpython(void) {
    Dl_info info;
    if (dladdr((void *)&Py_IsInitialized, &info) != 0 && info.dli_fname != NULL)
        (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

static int refused(PyStatus status, PyConfig *config) {
    if (!PyStatus_Exception(status))
        return 0;
    fprintf(stderr, "libSaCkpt: Python does not start: %s\n",
            status.err_msg != NULL ? status.err_msg : "no reason given");
    if (config != NULL)
        PyConfig_Clear(config);
    return -1;
}

static const char *set_in_environment(const char *name) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

/*
 * Isolated: PYTHONHOME and the like are meant for other Pythons and must not bend this one, the
 * program's signal handlers and locale stay as they are. UTF-8 mode because a C program that
 * never called setlocale() would get ASCII file names.
 */
static int start_interpreter(void) {
    const char *python = set_in_environment("RAFTCKPT_PYTHON");
    const char *home = set_in_environment("RAFTCKPT_PYTHONHOME");
    if (python == NULL)
        python = RAFTCKPT_BUILT_FROM;
    if (strchr(python, '/') != NULL && access(python, X_OK) != 0) {
        fprintf(stderr,
                "libSaCkpt: %s is not there (any more): set RAFTCKPT_PYTHON to the Python of the "
                "environment that has raftckpt, or run 'raftckpt saf-library install' there\n",
                python);
        return -1;
    }

    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    if (refused(Py_PreInitialize(&before), NULL) != 0)
        return -1;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    if (refused(PyConfig_SetBytesString(&config, &config.program_name, python), &config) != 0)
        return -1;
    if (home != NULL &&
        refused(PyConfig_SetBytesString(&config, &config.home, home), &config) != 0)
        return -1;
    char *arguments[] = {program_invocation_name}; /* so operators see who is connected */
    if (refused(PyConfig_SetBytesArgv(&config, 1, arguments), &config) != 0)
        return -1;
    if (refused(Py_InitializeFromConfig(&config), &config) != 0)
        return -1;
    PyConfig_Clear(&config);
    PyEval_SaveThread();
    ours = 1;
    return 0;
}

/* Find our modules, and say in one line what is wrong where they cannot be loaded. */
static int find_modules(void) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *names = PyDict_New(), *done = NULL, *problem = NULL;
    if (names != NULL &&
        PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0)
        done = PyRun_String(RAFTCKPT_STARTUP, Py_file_input, names, names);
    if (done != NULL)
        problem = PyDict_GetItemString(names, "problem");
    else
        PyErr_Print();
    const char *text = problem != NULL && problem != Py_None ? PyUnicode_AsUTF8(problem) : NULL;
    if (text != NULL)
        fprintf(stderr, "libSaCkpt: %s\n", text);
    int result = done != NULL && text == NULL ? 0 : -1;
    Py_XDECREF(done);
    Py_XDECREF(names);
    PyGILState_Release(state);
    return result;
}

/* Whether as many descriptors are left as Python needs to read its modules. */
static int descriptors_left(void) {
    int held[4], count = 0, left;
    while (count < 4 && (held[count] = eventfd(0, EFD_CLOEXEC)) >= 0)
        count++;
    left = count == 4;
    while (count > 0)
        (void)close(held[--count]);
    return left;
}

/* Start Python and load binding.py, once per process. OK if calls may be passed on. */
static SaAisErrorT start(void) {
    if (__atomic_load_n(&started, __ATOMIC_ACQUIRE) == 1)
        return SA_AIS_OK;
    pthread_mutex_lock(&starting);
    SaAisErrorT result = SA_AIS_OK;
    if (started == 0 && !descriptors_left())
        result = SA_AIS_ERR_NO_RESOURCES; /* a later call may find some */
    else if (started == 0) {
        /* threads that Python starts must not receive the program's signals */
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        unclear = 1;
        int done = another_python() == 0;
        if (done) {
            publish_libpython();
            done = (Py_IsInitialized() || start_interpreter() == 0) && find_modules() == 0 &&
                   cffi_start_python() == 0;
        }
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        __atomic_store_n(&started, done ? 1 : -1, __ATOMIC_RELEASE);
        unclear = 0;
    }
    if (started == -1)
        result = SA_AIS_ERR_LIBRARY;
    pthread_mutex_unlock(&starting);
    return result;
}

/* --- SIGPIPE -------------------------------------------------------------------------------- */

/*
 * Calls send on sockets; a replica that was killed would turn that into a SIGPIPE, which ends a
 * program that does not ignore it. So it is blocked during a call, and one that the call caused
 * is taken back.
 */
struct guard {
    sigset_t mask;
    int was_pending;
};

static void pipe_signal(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGPIPE);
}

static void hold(struct guard *guard) {
    sigset_t set;
    pipe_signal(&set);
    pthread_sigmask(SIG_BLOCK, &set, &guard->mask);
    guard->was_pending = 0;
    if (sigismember(&guard->mask, SIGPIPE)) { /* else it would have been delivered */
        sigpending(&set);
        guard->was_pending = sigismember(&set, SIGPIPE);
    }
}

static void let_go(struct guard *guard) {
    if (!guard->was_pending) {
        static const struct timespec now = {0, 0};
        sigset_t set;
        pipe_signal(&set);
        while (sigtimedwait(&set, NULL, &now) == -1 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
}

/*
 * Around the start of a thread: it inherits the mask, and threads of the library must not run the
 * program's signal handlers.
 */
static __thread sigset_t kept_mask;

static void keep_signals_away(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept_mask);
}

static void let_signals_in(void) { pthread_sigmask(SIG_SETMASK, &kept_mask, NULL); }

/* --- stacks --------------------------------------------------------------------------------- */

/*
 * Threads of SA Forum programs have stacks down to PTHREAD_STACK_MIN. A call uses up to 50 KiB
 * (measured with CPython 3.11); a thread that has not clearly more left hands it to a worker, a
 * thread of the library with a stack of its own, and waits. So does one that runs on some other
 * stack than its own, of which nothing is known: a coroutine, or a signal's.
 */
#define STACK_NEEDED (128 * 1024)
#define STACK_OF_WORKERS (512 * 1024)
#define IDLE_WORKERS_MAX 16

typedef SaAisErrorT (*runner)(const void *arguments);

struct worker {
    struct worker *next; /* idle, too */
    sem_t wanted, done;
    runner run; /* NULL: end */
    const void *arguments;
    SaAisErrorT result;
};

static pthread_mutex_t resting = PTHREAD_MUTEX_INITIALIZER;
static struct worker *idle; /* this and the next under resting */
static int idle_count;

static void wait_for(sem_t *semaphore) {
    while (sem_wait(semaphore) == -1 && errno == EINTR) {
    }
}

static void *work(void *argument) {
    struct worker *self = argument;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    for (;;) {
        wait_for(&self->wanted);
        if (self->run == NULL)
            break;
        self->result = start();
        if (self->result == SA_AIS_OK)
            self->result = self->run(self->arguments);
        sem_post(&self->done);
    }
    sem_destroy(&self->wanted);
    sem_destroy(&self->done);
    free(self);
    return NULL;
}

static struct worker *new_worker(void) {
    struct worker *fresh = calloc(1, sizeof *fresh);
    pthread_attr_t attributes;
    pthread_t thread;
    if (fresh == NULL || pthread_attr_init(&attributes) != 0) {
        free(fresh);
        return NULL;
    }
    sem_init(&fresh->wanted, 0, 0);
    sem_init(&fresh->done, 0, 0);
    pthread_attr_setstacksize(&attributes, STACK_OF_WORKERS);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&thread, &attributes, work, fresh);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (failed) {
        sem_destroy(&fresh->wanted);
        sem_destroy(&fresh->done);
        free(fresh);
        return NULL;
    }
    return fresh;
}

static SaAisErrorT run_elsewhere(runner run, const void *arguments) {
    pthread_mutex_lock(&resting);
    struct worker *worker = idle;
    if (worker != NULL) {
        idle = worker->next;
        idle_count--;
    }
    pthread_mutex_unlock(&resting);
    if (worker == NULL && (worker = new_worker()) == NULL)
        return SA_AIS_ERR_NO_RESOURCES; /* no thread could be made */
    worker->run = run;
    worker->arguments = arguments;
    sem_post(&worker->wanted);
    wait_for(&worker->done);
    SaAisErrorT result = worker->result;
    pthread_mutex_lock(&resting);
    int stays = idle_count < IDLE_WORKERS_MAX;
    if (stays) {
        worker->next = idle;
        idle = worker;
        idle_count++;
    }
    pthread_mutex_unlock(&resting);
    if (!stays) {
        worker->run = NULL;
        sem_post(&worker->wanted);
    }
    return result;
}

static SaAisErrorT run_here(runner run, const void *arguments) {
    SaAisErrorT result = start();
    if (result != SA_AIS_OK)
        return result;
    struct guard guard;
    hold(&guard);
    result = run(arguments);
    let_go(&guard);
    return result;
}

static __thread struct {
    char *low, *high;
} stack; /* of this thread, once it is known */

static int has_room(void) {
    char *here = __builtin_frame_address(0);
    if (stack.low == NULL) {
        pthread_attr_t attributes;
        void *low;
        size_t size;
        if (pthread_getattr_np(pthread_self(), &attributes) != 0)
            return 0;
        if (pthread_attr_getstack(&attributes, &low, &size) == 0) {
            stack.low = low;
            stack.high = stack.low + size;
        }
        pthread_attr_destroy(&attributes);
    }
    return here < stack.high && here - stack.low >= STACK_NEEDED;
}

/*
 * Run one py_ function. A thread may be cancelled when the call begins and not after that: it must
 * not be unwound with Python under it, nor lose the outcome of what it did. errno is the program's
 * and stays as it is.
 */
static SaAisErrorT pass_on(runner run, const void *arguments) {
    if (in_child)
        return SA_AIS_ERR_BAD_HANDLE;
    pthread_testcancel();
    int saved = errno, cancelling;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
    SaAisErrorT result =
        has_room() ? run_here(run, arguments) : run_elsewhere(run, arguments);
    errno = saved;
    pthread_setcancelstate(cancelling, NULL);
    return result;
}

RAFTCKPT_CALLS

/* --- callbacks ------------------------------------------------------------------------------ */

/*
 * They run on the thread that called saCkptDispatch(), with nothing of Python below them: they may
 * be cancelled or end their thread. A dispatch that has nothing to do waits here, too.
 */
static pthread_mutex_t waking = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static unsigned long wakes; /* under waking */

/* Called by binding.py whenever a dispatch may have something to do. */
static void wake_dispatchers(void) {
    pthread_mutex_lock(&waking);
    wakes++;
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&waking);
}

static unsigned long wakes_so_far(void) {
    pthread_mutex_lock(&waking);
    unsigned long found = wakes;
    pthread_mutex_unlock(&waking);
    return found;
}

static void unlock(void *mutex) { pthread_mutex_unlock(mutex); }

/* A cancellation point. */
static void sleep_until_woken(unsigned long seen) {
    pthread_mutex_lock(&waking);
    pthread_cleanup_push(unlock, &waking);
    while (wakes == seen)
        pthread_cond_wait(&woken, &waking);
    pthread_cleanup_pop(1);
}

static void call_back(const TurnT *turn) {
    pthread_cleanup_push(free, turn->vector);
    if (turn->opened != NULL)
        turn->opened(turn->invocation, turn->checkpoint, turn->error);
    if (turn->synchronized != NULL)
        turn->synchronized(turn->invocation, turn->error);
    if (turn->tracked != NULL)
        turn->tracked(turn->checkpoint, turn->vector, turn->count);
    pthread_cleanup_pop(1);
}

/* Called by binding.py on a thread of its own; text is NUL-terminated. */
static void call_consumption_callback(ClCkptNotificationCallbackT callback,
                                      SaCkptCheckpointHandleT checkpoint, const char *text,
                                      SaCkptIOVectorElementT *vector, SaUint32T count,
                                      void *cookie) {
    SaNameT name;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL); /* it is the library's thread */
    memset(&name, 0, sizeof name);
    saAisNameLend(text, &name);
    callback(checkpoint, &name, vector, count, cookie);
}

/* --- fork() --------------------------------------------------------------------------------- */

/*
 * Python's own steps around a fork are taken here, so that a child finds no handle of its parent
 * (raftckpt.saf sees to that) and may initialize anew. Where that is impossible - the fork hit the
 * start of Python, a Python program started it, or the stack is too small for these steps - a
 * child gets errors and no deadlock. Only fork() runs these; vfork(), posix_spawn() and system()
 * do not.
 */
static __thread PyGILState_STATE forking;
static __thread int prepared, cancelled_as;

static void before_fork(void) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelled_as);
    prepared = ours && !in_child && started == 1 && !unclear && has_room();
    if (prepared) {
        forking = PyGILState_Ensure();
        PyOS_BeforeFork();
    }
    pthread_mutex_lock(&resting);
    pthread_mutex_lock(&waking);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&waking);
    pthread_mutex_unlock(&resting);
    if (prepared) {
        PyOS_AfterFork_Parent();
        PyGILState_Release(forking);
    }
    pthread_setcancelstate(cancelled_as, NULL);
}

/* Workers and dispatchers were other threads, which a child does not have. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&resting, NULL);
    pthread_mutex_init(&waking, NULL);
    pthread_cond_init(&woken, NULL);
    idle = NULL;
    idle_count = 0;
    if (prepared) {
        PyOS_AfterFork_Child();
        PyGILState_Release(forking);
    } else if (unclear || started != 0) {
        in_child = 1;
    }
    pthread_setcancelstate(cancelled_as, NULL);
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* --- names ---------------------------------------------------------------------------------- */

/*
 * A long name is a magic number in place of the length, and a pointer at the next offset where a
 * pointer can be aligned: OpenSAF's layout, so that a program may mix the two libraries.
 */
#define LONG_NAME_MAGIC 0xcd2b
#define LONG_NAME_OFFSET sizeof(SaConstStringT)
#define LONG_NAME_MAX 2048

static SaUint16T name_length(const SaNameT *name) {
    SaUint16T length;
    memcpy(&length, name, sizeof length);
    return length;
}

static SaConstStringT name_lent(const SaNameT *name) {
    SaConstStringT value;
    memcpy(&value, (const char *)name + LONG_NAME_OFFSET, sizeof value);
    return value;
}

static int long_names_enabled(void) {
    const char *enabled = getenv("SA_ENABLE_EXTENDED_NAMES");
    return enabled != NULL && strcmp(enabled, "1") == 0;
}

void saAisNameLend(SaConstStringT value, SaNameT *name) {
    if (name == NULL)
        return;
    size_t length = value != NULL ? strlen(value) : 0;
    SaUint16T head = (SaUint16T)length;
    if (length < SA_MAX_UNEXTENDED_NAME_LENGTH) {
        memcpy((char *)name + sizeof head, value != NULL ? value : "", length + 1);
    } else {
        head = LONG_NAME_MAGIC;
        memcpy((char *)name + LONG_NAME_OFFSET, &value, sizeof value);
    }
    memcpy(name, &head, sizeof head);
}

SaConstStringT saAisNameBorrow(const SaNameT *name) {
    if (name == NULL)
        return NULL;
    SaUint16T length = name_length(name);
    if (length == LONG_NAME_MAGIC)
        return name_lent(name);
    SaConstStringT value = (SaConstStringT)name + sizeof length;
    /* counting the NUL is a common mistake and does no harm */
    size_t room = length < SA_MAX_UNEXTENDED_NAME_LENGTH ? (size_t)length + 1 : length;
    if (room > SA_MAX_UNEXTENDED_NAME_LENGTH || memchr(value, '\0', room) == NULL)
        return NULL;
    return value;
}

/*
 * The bytes of a name, up to a NUL if there is one: who counts it means the name without it. NULL
 * stays NULL: it is refused where its turn in the order of checks is.
 */
static SaAisErrorT name_of(const SaNameT *name, const char **bytes, SaSizeT *length) {
    *bytes = NULL;
    *length = 0;
    if (name == NULL)
        return SA_AIS_OK;
    SaUint16T head = name_length(name);
    if (head != LONG_NAME_MAGIC) {
        if (head > SA_MAX_UNEXTENDED_NAME_LENGTH)
            return SA_AIS_ERR_INVALID_PARAM;
        *bytes = (const char *)name + sizeof head;
        *length = strnlen(*bytes, head);
        return SA_AIS_OK;
    }
    if (!long_names_enabled())
        return SA_AIS_ERR_INVALID_PARAM;
    *bytes = name_lent(name);
    if (*bytes == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    *length = strnlen(*bytes, LONG_NAME_MAX + 1);
    return *length > LONG_NAME_MAX ? SA_AIS_ERR_TOO_BIG : SA_AIS_OK;
}

/* --- life cycle ----------------------------------------------------------------------------- */

static SaAisErrorT initialize(SaCkptHandleT *ckptHandle, const SaCkptCallbacksT_2 *callbacks,
                              SaVersionT *version, SaUint32T second) {
    if (ckptHandle == NULL || version == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    *ckptHandle = 0;
    if (in_child)
        return SA_AIS_ERR_LIBRARY;
    /*
     * Threads that the client starts now must not receive the program's signals. Those that end
     * a program stay as they are: with the cluster out of reach this call takes seconds.
     */
    sigset_t most, old;
    sigfillset(&most);
    sigdelset(&most, SIGINT);
    sigdelset(&most, SIGTERM);
    sigdelset(&most, SIGQUIT);
    pthread_sigmask(SIG_BLOCK, &most, &old);
    SaAisErrorT result = call_initialize(ckptHandle, callbacks, version, second);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return result;
}

SaAisErrorT saCkptInitialize(SaCkptHandleT *ckptHandle, const SaCkptCallbacksT *callbacks,
                             SaVersionT *version) {
    SaCkptCallbacksT_2 given = {NULL, NULL, NULL};
    if (callbacks != NULL) {
        given.saCkptCheckpointOpenCallback = callbacks->saCkptCheckpointOpenCallback;
        given.saCkptCheckpointSynchronizeCallback = callbacks->saCkptCheckpointSynchronizeCallback;
    }
    return initialize(ckptHandle, &given, version, 0);
}

SaAisErrorT saCkptInitialize_2(SaCkptHandleT *ckptHandle, const SaCkptCallbacksT_2 *callbacks,
                               SaVersionT *version) {
    return initialize(ckptHandle, callbacks, version, 1);
}

SaAisErrorT saCkptSelectionObjectGet(SaCkptHandleT ckptHandle,
                                     SaSelectionObjectT *selectionObject) {
    if (selectionObject == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    return call_selection_object_get(ckptHandle, selectionObject);
}

SaAisErrorT saCkptDispatch(SaCkptHandleT ckptHandle, SaDispatchFlagsT dispatchFlags) {
    TurnT turn;
    memset(&turn, 0, sizeof turn);
    do {
        unsigned long seen = dispatchFlags == SA_DISPATCH_BLOCKING ? wakes_so_far() : 0;
        SaAisErrorT rc = call_dispatch(ckptHandle, (SaUint32T)dispatchFlags, &turn);
        if (rc != SA_AIS_OK)
            return rc;
        call_back(&turn);
        if (turn.waits)
            sleep_until_woken(seen);
    } while (turn.left != 0);
    return SA_AIS_OK;
}

SaAisErrorT saCkptFinalize(SaCkptHandleT ckptHandle) { return call_finalize(ckptHandle); }

/* --- checkpoints ---------------------------------------------------------------------------- */

SaAisErrorT saCkptCheckpointOpen(
    SaCkptHandleT ckptHandle, const SaNameT *checkpointName,
    const SaCkptCheckpointCreationAttributesT *checkpointCreationAttributes,
    SaCkptCheckpointOpenFlagsT checkpointOpenFlags, SaTimeT timeout,
    SaCkptCheckpointHandleT *checkpointHandle) {
    const char *name;
    SaSizeT length;
    if (checkpointName == NULL || checkpointHandle == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    SaAisErrorT bad = name_of(checkpointName, &name, &length);
    if (bad != SA_AIS_OK)
        return bad;
    return call_open(ckptHandle, name, length, checkpointCreationAttributes, checkpointOpenFlags,
                    timeout, checkpointHandle);
}

SaAisErrorT saCkptCheckpointOpenAsync(
    SaCkptHandleT ckptHandle, SaInvocationT invocation, const SaNameT *checkpointName,
    const SaCkptCheckpointCreationAttributesT *checkpointCreationAttributes,
    SaCkptCheckpointOpenFlagsT checkpointOpenFlags) {
    const char *name;
    SaSizeT length;
    SaAisErrorT bad = name_of(checkpointName, &name, &length);
    if (bad != SA_AIS_OK)
        return bad;
    return call_open_async(ckptHandle, invocation, name, length, checkpointCreationAttributes,
                          checkpointOpenFlags);
}

SaAisErrorT saCkptCheckpointClose(SaCkptCheckpointHandleT checkpointHandle) {
    return call_close(checkpointHandle);
}

SaAisErrorT saCkptCheckpointUnlink(SaCkptHandleT ckptHandle, const SaNameT *checkpointName) {
    const char *name;
    SaSizeT length;
    SaAisErrorT bad = name_of(checkpointName, &name, &length);
    if (bad != SA_AIS_OK)
        return bad;
    return call_unlink(ckptHandle, name, length);
}

SaAisErrorT saCkptCheckpointRetentionDurationSet(SaCkptCheckpointHandleT checkpointHandle,
                                                 SaTimeT retentionDuration) {
    return call_retention_duration_set(checkpointHandle, retentionDuration);
}

SaAisErrorT saCkptActiveReplicaSet(SaCkptCheckpointHandleT checkpointHandle) {
    return call_active_replica_set(checkpointHandle);
}

SaAisErrorT saCkptCheckpointStatusGet(SaCkptCheckpointHandleT checkpointHandle,
                                      SaCkptCheckpointDescriptorT *checkpointStatus) {
    if (checkpointStatus == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    return call_status_get(checkpointHandle, checkpointStatus);
}

/* --- sections ------------------------------------------------------------------------------- */

SaAisErrorT saCkptSectionCreate(SaCkptCheckpointHandleT checkpointHandle,
                                SaCkptSectionCreationAttributesT *sectionCreationAttributes,
                                const void *initialData, SaSizeT initialDataSize) {
    return call_section_create(checkpointHandle, sectionCreationAttributes, initialData,
                              initialDataSize);
}

SaAisErrorT saCkptSectionDelete(SaCkptCheckpointHandleT checkpointHandle,
                                const SaCkptSectionIdT *sectionId) {
    return call_section_delete(checkpointHandle, sectionId);
}

SaAisErrorT saCkptSectionIdFree(SaCkptCheckpointHandleT checkpointHandle, SaUint8T *id) {
    return call_section_id_free(checkpointHandle, id);
}

SaAisErrorT saCkptSectionExpirationTimeSet(SaCkptCheckpointHandleT checkpointHandle,
                                           const SaCkptSectionIdT *sectionId,
                                           SaTimeT expirationTime) {
    return call_expiration_time_set(checkpointHandle, sectionId, expirationTime);
}

SaAisErrorT saCkptSectionIterationInitialize(
    SaCkptCheckpointHandleT checkpointHandle, SaCkptSectionsChosenT sectionsChosen,
    SaTimeT expirationTime, SaCkptSectionIterationHandleT *sectionIterationHandle) {
    if (sectionIterationHandle == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    return call_iteration_initialize(checkpointHandle, (SaUint32T)sectionsChosen, expirationTime,
                                    sectionIterationHandle);
}

SaAisErrorT saCkptSectionIterationNext(SaCkptSectionIterationHandleT sectionIterationHandle,
                                       SaCkptSectionDescriptorT *sectionDescriptor) {
    if (sectionDescriptor == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    return call_iteration_next(sectionIterationHandle, sectionDescriptor);
}

SaAisErrorT saCkptSectionIterationFinalize(SaCkptSectionIterationHandleT sectionIterationHandle) {
    return call_iteration_finalize(sectionIterationHandle);
}

/* --- data ----------------------------------------------------------------------------------- */

SaAisErrorT saCkptCheckpointWrite(SaCkptCheckpointHandleT checkpointHandle,
                                  const SaCkptIOVectorElementT *ioVector,
                                  SaUint32T numberOfElements, SaUint32T *erroneousVectorIndex) {
    return call_write(checkpointHandle, ioVector, numberOfElements, erroneousVectorIndex);
}

SaAisErrorT saCkptSectionOverwrite(SaCkptCheckpointHandleT checkpointHandle,
                                   const SaCkptSectionIdT *sectionId, const void *dataBuffer,
                                   SaSizeT dataSize) {
    return call_overwrite(checkpointHandle, sectionId, dataBuffer, dataSize);
}

SaAisErrorT saCkptCheckpointRead(SaCkptCheckpointHandleT checkpointHandle,
                                 SaCkptIOVectorElementT *ioVector, SaUint32T numberOfElements,
                                 SaUint32T *erroneousVectorIndex) {
    return call_read(checkpointHandle, ioVector, numberOfElements, erroneousVectorIndex);
}

SaAisErrorT saCkptIOVectorElementDataFree(SaCkptCheckpointHandleT checkpointHandle, void *data) {
    return call_data_free(checkpointHandle, data);
}

SaAisErrorT saCkptCheckpointSynchronize(SaCkptCheckpointHandleT checkpointHandle,
                                        SaTimeT timeout) {
    return call_synchronize(checkpointHandle, timeout);
}

SaAisErrorT saCkptCheckpointSynchronizeAsync(SaCkptCheckpointHandleT checkpointHandle,
                                             SaInvocationT invocation) {
    return call_synchronize_async(checkpointHandle, invocation);
}

/* --- track callbacks ------------------------------------------------------------------------ */

SaAisErrorT saCkptTrack(SaCkptHandleT ckptHandle) { return call_track(ckptHandle); }

SaAisErrorT saCkptTrackStop(SaCkptHandleT ckptHandle) { return call_track_stop(ckptHandle); }

SaAisErrorT saCkptCheckpointTrack(SaCkptCheckpointHandleT checkpointHandle) {
    (void)checkpointHandle;
    return SA_AIS_ERR_NOT_SUPPORTED;
}

SaAisErrorT saCkptCheckpointTrackStop(SaCkptCheckpointHandleT checkpointHandle) {
    (void)checkpointHandle;
    return SA_AIS_ERR_NOT_SUPPORTED;
}

/* --- what other implementations add --------------------------------------------------------- */

SaAisErrorT ncsCkptRegisterCkptArrivalCallback(SaCkptHandleT ckptHandle,
                                               ncsCkptCkptArrivalCallbackT ckptArrivalCallback) {
    if (ckptArrivalCallback == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    return call_arrival_register(ckptHandle, ckptArrivalCallback);
}

SaUint32T clCkptImmediateConsumptionRegister(SaUint64T ckptHdl,
                                             ClCkptNotificationCallbackT callback, void *pCookie) {
    SaAisErrorT rc = call_consumption_register(ckptHdl, callback, pCookie);
    return rc == SA_AIS_OK ? 0 : (SaUint32T)rc;
}

/* Programs compare with SAFplus's own numbers; the upper half says that the service answers. */
static SaUint32T safplus_code(SaAisErrorT rc) {
    static const struct {
        SaAisErrorT rc;
        SaUint32T code;
    } codes[] = {
        {SA_AIS_ERR_NO_MEMORY, 0x01}, {SA_AIS_ERR_INVALID_PARAM, 0x02},
        {SA_AIS_ERR_NOT_EXIST, 0x04}, {SA_AIS_ERR_BAD_HANDLE, 0x05},
        {SA_AIS_ERR_TIMEOUT, 0x14},   {SA_AIS_ERR_TRY_AGAIN, 0x16},
        {SA_AIS_ERR_LIBRARY, 0x24},   {SA_AIS_ERR_NO_RESOURCES, 0x0b},
    };
    if (rc == SA_AIS_OK)
        return 0;
    for (size_t row = 0; row < sizeof codes / sizeof *codes; row++)
        if (codes[row].rc == rc)
            return 0x160000 | codes[row].code;
    return 0x160011; /* unspecified */
}

SaUint32T clCkptSectionCheck(SaUint64T ckptHdl, SaCkptSectionIdT *pSectionId) {
    return safplus_code(call_section_check(ckptHdl, pSectionId));
}
