/*
 * The C half of libSaCkpt.so: the 24 calls of the SA Forum Checkpoint Service with the standard's
 * ABI, in front of a Python interpreter that runs inside the calling process.
 *
 * It owns what only C can do: starting the interpreter, names, out-parameters that are NULL,
 * children made by fork(), and SIGPIPE. What a call means is decided by raftckpt.saf, which
 * binding.py reaches; cffi generates the glue between the two halves from bridge.h.
 *
 * This text is compiled inside the file cffi generates, which includes Python.h first.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- the interpreter ------------------------------------------------------------------------ */

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static int started;          /* 0: not yet, 1: runs, -1: failed for good; written under starting */
static volatile int unclear; /* a thread is between these states */
static int ours;             /* the interpreter was started here, not by a Python program */
static volatile int in_child; /* forked, and Python cannot be used in this process */

/*
 * fork(). Python's own steps around a fork are taken here, so that a child finds no handle of its
 * parent (raftckpt.saf sees to that) and may initialize anew. Where that is impossible - the fork
 * hit the start of Python, or a Python program started it - a child gets errors and no deadlock.
 * Only fork() runs these; vfork(), posix_spawn() and system() do not.
 */
static PyGILState_STATE forking;

static int forks_well(void) { return ours && !in_child && started == 1 && !unclear; }

static void before_fork(void) {
    if (forks_well()) {
        forking = PyGILState_Ensure();
        PyOS_BeforeFork();
    }
}

static void after_fork_in_parent(void) {
    if (forks_well()) {
        PyOS_AfterFork_Parent();
        PyGILState_Release(forking);
    }
}

static void after_fork_in_child(void) {
    if (forks_well()) {
        PyOS_AfterFork_Child();
        PyGILState_Release(forking);
    } else if (unclear || started != 0) {
        in_child = 1;
    }
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
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

/*
 * Isolated: PYTHONHOME and the like are meant for other Pythons and must not bend this one, the
 * program's signal handlers and locale stay as they are. UTF-8 mode because a C program that
 * never called setlocale() would get ASCII file names.
 */
static int start_interpreter(void) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    if (refused(Py_PreInitialize(&before), NULL) != 0)
        return -1;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    const char *python = getenv("RAFTCKPT_PYTHON");
    if (python == NULL || *python == '\0')
        python = RAFTCKPT_BUILT_FROM;
    if (refused(PyConfig_SetBytesString(&config, &config.program_name, python), &config) != 0)
        return -1;
    const char *home = getenv("RAFTCKPT_PYTHONHOME");
    if (home != NULL && *home != '\0' &&
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

/* Start Python and load binding.py, once per process. Returns 0 if calls may be passed on. */
static int start(void) {
    if (__atomic_load_n(&started, __ATOMIC_ACQUIRE) == 1)
        return 0;
    pthread_mutex_lock(&starting);
    if (started == 0) {
        /* threads that Python starts must not receive the program's signals */
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        publish_libpython();
        unclear = 1;
        int done = (Py_IsInitialized() || start_interpreter() == 0) && cffi_start_python() == 0;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        __atomic_store_n(&started, done ? 1 : -1, __ATOMIC_RELEASE);
        unclear = 0;
    }
    int result = started;
    pthread_mutex_unlock(&starting);
    return result == 1 ? 0 : -1;
}

/* --- SIGPIPE -------------------------------------------------------------------------------- */

/*
 * Calls send on sockets; a replica that was killed would turn that into a SIGPIPE, which ends a
 * program that does not ignore it. So it is blocked during a call, and one that the call caused
 * is taken back. While a callback runs the program has its own mask.
 */
struct guard {
    sigset_t mask;
    int was_pending;
};
static __thread struct guard *guarding;

static void pipe_signal(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGPIPE);
}

static void hold(struct guard *guard) {
    sigset_t set;
    sigpending(&set);
    guard->was_pending = sigismember(&set, SIGPIPE);
    pipe_signal(&set);
    pthread_sigmask(SIG_BLOCK, &set, &guard->mask);
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

/* Run one py_ function. errno is the program's and stays as it is. */
#define PASS_ON(call)                                  \
    do {                                               \
        if (in_child)                                  \
            return SA_AIS_ERR_BAD_HANDLE;              \
        if (start() != 0)                              \
            return SA_AIS_ERR_LIBRARY;                 \
        int saved = errno;                             \
        struct guard guard, *outer = guarding;         \
        hold(&guard);                                  \
        guarding = &guard;                             \
        SaAisErrorT result = (call);                   \
        guarding = outer;                              \
        let_go(&guard);                                \
        errno = saved;                                 \
        return result;                                 \
    } while (0)

/* Called by binding.py, in a thread that is inside saCkptDispatch(). */
#define CALL_BACK(call)                                \
    do {                                               \
        struct guard *guard = guarding;                \
        if (guard != NULL)                             \
            let_go(guard);                             \
        guarding = NULL;                               \
        (call);                                        \
        guarding = guard;                              \
        if (guard != NULL)                             \
            hold(guard);                               \
    } while (0)

static void call_open_callback(SaCkptCheckpointOpenCallbackT callback, SaInvocationT invocation,
                               SaCkptCheckpointHandleT checkpoint, SaUint32T error) {
    CALL_BACK(callback(invocation, checkpoint, (SaAisErrorT)error));
}

static void call_synchronize_callback(SaCkptCheckpointSynchronizeCallbackT callback,
                                      SaInvocationT invocation, SaUint32T error) {
    CALL_BACK(callback(invocation, (SaAisErrorT)error));
}

static void call_arrival_callback(ncsCkptCkptArrivalCallbackT callback,
                                  SaCkptCheckpointHandleT checkpoint,
                                  SaCkptIOVectorElementT *vector, SaUint32T count) {
    CALL_BACK(callback(checkpoint, vector, count));
}

/* Called by binding.py on a thread of its own; text is NUL-terminated. */
static void call_consumption_callback(ClCkptNotificationCallbackT callback,
                                      SaCkptCheckpointHandleT checkpoint, const char *text,
                                      SaCkptIOVectorElementT *vector, SaUint32T count,
                                      void *cookie) {
    SaNameT name;
    memset(&name, 0, sizeof name);
    saAisNameLend(text, &name);
    CALL_BACK(callback(checkpoint, &name, vector, count, cookie));
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

/* The bytes of a name. NULL stays NULL: it is refused where its turn in the order of checks is. */
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
        *length = head;
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

static SaAisErrorT initialize(SaCkptHandleT *handle, const SaCkptCallbacksT *callbacks,
                              SaVersionT *version) {
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
    SaAisErrorT result = py_initialize(handle, callbacks, version);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return result;
}

SaAisErrorT saCkptInitialize(SaCkptHandleT *ckptHandle, const SaCkptCallbacksT *callbacks,
                             SaVersionT *version) {
    if (ckptHandle == NULL || version == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    *ckptHandle = 0;
    if (in_child)
        return SA_AIS_ERR_LIBRARY;
    PASS_ON(initialize(ckptHandle, callbacks, version));
}

SaAisErrorT saCkptSelectionObjectGet(SaCkptHandleT ckptHandle,
                                     SaSelectionObjectT *selectionObject) {
    if (selectionObject == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    PASS_ON(py_selection_object_get(ckptHandle, selectionObject));
}

SaAisErrorT saCkptDispatch(SaCkptHandleT ckptHandle, SaDispatchFlagsT dispatchFlags) {
    PASS_ON(py_dispatch(ckptHandle, (SaUint32T)dispatchFlags));
}

SaAisErrorT saCkptFinalize(SaCkptHandleT ckptHandle) { PASS_ON(py_finalize(ckptHandle)); }

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
    PASS_ON(py_open(ckptHandle, name, length, checkpointCreationAttributes, checkpointOpenFlags,
                    timeout, checkpointHandle));
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
    PASS_ON(py_open_async(ckptHandle, invocation, name, length, checkpointCreationAttributes,
                          checkpointOpenFlags));
}

SaAisErrorT saCkptCheckpointClose(SaCkptCheckpointHandleT checkpointHandle) {
    PASS_ON(py_close(checkpointHandle));
}

SaAisErrorT saCkptCheckpointUnlink(SaCkptHandleT ckptHandle, const SaNameT *checkpointName) {
    const char *name;
    SaSizeT length;
    SaAisErrorT bad = name_of(checkpointName, &name, &length);
    if (bad != SA_AIS_OK)
        return bad;
    PASS_ON(py_unlink(ckptHandle, name, length));
}

SaAisErrorT saCkptCheckpointRetentionDurationSet(SaCkptCheckpointHandleT checkpointHandle,
                                                 SaTimeT retentionDuration) {
    PASS_ON(py_retention_duration_set(checkpointHandle, retentionDuration));
}

SaAisErrorT saCkptActiveReplicaSet(SaCkptCheckpointHandleT checkpointHandle) {
    PASS_ON(py_active_replica_set(checkpointHandle));
}

SaAisErrorT saCkptCheckpointStatusGet(SaCkptCheckpointHandleT checkpointHandle,
                                      SaCkptCheckpointDescriptorT *checkpointStatus) {
    if (checkpointStatus == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    PASS_ON(py_status_get(checkpointHandle, checkpointStatus));
}

/* --- sections ------------------------------------------------------------------------------- */

SaAisErrorT saCkptSectionCreate(SaCkptCheckpointHandleT checkpointHandle,
                                SaCkptSectionCreationAttributesT *sectionCreationAttributes,
                                const void *initialData, SaSizeT initialDataSize) {
    PASS_ON(py_section_create(checkpointHandle, sectionCreationAttributes, initialData,
                              initialDataSize));
}

SaAisErrorT saCkptSectionDelete(SaCkptCheckpointHandleT checkpointHandle,
                                const SaCkptSectionIdT *sectionId) {
    PASS_ON(py_section_delete(checkpointHandle, sectionId));
}

SaAisErrorT saCkptSectionIdFree(SaCkptCheckpointHandleT checkpointHandle, SaUint8T *id) {
    PASS_ON(py_section_id_free(checkpointHandle, id));
}

SaAisErrorT saCkptSectionExpirationTimeSet(SaCkptCheckpointHandleT checkpointHandle,
                                           const SaCkptSectionIdT *sectionId,
                                           SaTimeT expirationTime) {
    PASS_ON(py_expiration_time_set(checkpointHandle, sectionId, expirationTime));
}

SaAisErrorT saCkptSectionIterationInitialize(
    SaCkptCheckpointHandleT checkpointHandle, SaCkptSectionsChosenT sectionsChosen,
    SaTimeT expirationTime, SaCkptSectionIterationHandleT *sectionIterationHandle) {
    if (sectionIterationHandle == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    PASS_ON(py_iteration_initialize(checkpointHandle, (SaUint32T)sectionsChosen, expirationTime,
                                    sectionIterationHandle));
}

SaAisErrorT saCkptSectionIterationNext(SaCkptSectionIterationHandleT sectionIterationHandle,
                                       SaCkptSectionDescriptorT *sectionDescriptor) {
    if (sectionDescriptor == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    PASS_ON(py_iteration_next(sectionIterationHandle, sectionDescriptor));
}

SaAisErrorT saCkptSectionIterationFinalize(SaCkptSectionIterationHandleT sectionIterationHandle) {
    PASS_ON(py_iteration_finalize(sectionIterationHandle));
}

/* --- data ----------------------------------------------------------------------------------- */

SaAisErrorT saCkptCheckpointWrite(SaCkptCheckpointHandleT checkpointHandle,
                                  const SaCkptIOVectorElementT *ioVector,
                                  SaUint32T numberOfElements, SaUint32T *erroneousVectorIndex) {
    PASS_ON(py_write(checkpointHandle, ioVector, numberOfElements, erroneousVectorIndex));
}

SaAisErrorT saCkptSectionOverwrite(SaCkptCheckpointHandleT checkpointHandle,
                                   const SaCkptSectionIdT *sectionId, const void *dataBuffer,
                                   SaSizeT dataSize) {
    PASS_ON(py_overwrite(checkpointHandle, sectionId, dataBuffer, dataSize));
}

SaAisErrorT saCkptCheckpointRead(SaCkptCheckpointHandleT checkpointHandle,
                                 SaCkptIOVectorElementT *ioVector, SaUint32T numberOfElements,
                                 SaUint32T *erroneousVectorIndex) {
    PASS_ON(py_read(checkpointHandle, ioVector, numberOfElements, erroneousVectorIndex));
}

SaAisErrorT saCkptIOVectorElementDataFree(SaCkptCheckpointHandleT checkpointHandle, void *data) {
    PASS_ON(py_data_free(checkpointHandle, data));
}

SaAisErrorT saCkptCheckpointSynchronize(SaCkptCheckpointHandleT checkpointHandle,
                                        SaTimeT timeout) {
    PASS_ON(py_synchronize(checkpointHandle, timeout));
}

SaAisErrorT saCkptCheckpointSynchronizeAsync(SaCkptCheckpointHandleT checkpointHandle,
                                             SaInvocationT invocation) {
    PASS_ON(py_synchronize_async(checkpointHandle, invocation));
}

/* --- what other implementations add --------------------------------------------------------- */

SaAisErrorT ncsCkptRegisterCkptArrivalCallback(SaCkptHandleT ckptHandle,
                                               ncsCkptCkptArrivalCallbackT ckptArrivalCallback) {
    if (ckptArrivalCallback == NULL)
        return SA_AIS_ERR_INVALID_PARAM;
    PASS_ON(py_arrival_register(ckptHandle, ckptArrivalCallback));
}

static SaAisErrorT consumption_register(SaCkptCheckpointHandleT checkpoint,
                                        ClCkptNotificationCallbackT callback, void *cookie) {
    PASS_ON(py_consumption_register(checkpoint, callback, cookie));
}

SaUint32T clCkptImmediateConsumptionRegister(SaUint64T ckptHdl,
                                             ClCkptNotificationCallbackT callback, void *pCookie) {
    SaAisErrorT rc = consumption_register(ckptHdl, callback, pCookie);
    return rc == SA_AIS_OK ? 0 : (SaUint32T)rc;
}
