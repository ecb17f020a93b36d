/* Initialize, selection object, dispatch, finalize; NULL everywhere; fork. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>

#include "check.h"

/* Before anything else in the process: also the first call of all may be a wrong one. */
void check_null_pointers(void) {
    SaCkptHandleT client;
    SaVersionT version = {'B', 2, 2};
    SaNameT name = name_of("safCkpt=nowhere");
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);

    IS(SA_AIS_ERR_INVALID_PARAM, saCkptInitialize(NULL, NULL, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptInitialize(NULL, NULL, &version));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptInitialize(&client, NULL, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSelectionObjectGet(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(NOWHERE, SA_DISPATCH_ALL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptFinalize(NOWHERE));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptFinalize(0));
    SaCkptCheckpointHandleT checkpoint;
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpen(0, NULL, NULL, 0, 0, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptCheckpointOpen(NOWHERE, NULL, &attributes, CREATE, 0, &checkpoint));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptCheckpointOpen(NOWHERE, &name, &attributes, CREATE, 0, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptCheckpointOpen(NOWHERE, &name, NULL, CREATE, 0, &checkpoint));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(NOWHERE, 0, NULL, &attributes, CREATE));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(NOWHERE, 0, &name, NULL, CREATE));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(NOWHERE));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointUnlink(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointRetentionDurationSet(NOWHERE, 0));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptActiveReplicaSet(NOWHERE));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointStatusGet(NOWHERE, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionCreate(NOWHERE, NULL, NULL, 0));
    SaCkptSectionCreationAttributesT no_id = {NULL, SA_TIME_END};
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionCreate(NOWHERE, &no_id, NULL, 0));
    SaCkptSectionIdT section = section_of("1");
    SaCkptSectionCreationAttributesT one = {&section, SA_TIME_END};
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionCreate(NOWHERE, &one, NULL, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIdFree(NOWHERE, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionExpirationTimeSet(NOWHERE, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptSectionIterationInitialize(NOWHERE, SA_CKPT_SECTIONS_ANY, 0, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionIterationNext(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationFinalize(NOWHERE));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(NOWHERE, NULL, 1, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(NOWHERE, NULL, "x", 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(NOWHERE, &section, NULL, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(NOWHERE, NULL, 1, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptIOVectorElementDataFree(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointSynchronize(NOWHERE, 0));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointSynchronizeAsync(NOWHERE, 0));
    saAisNameLend("x", NULL);
    THAT(saAisNameBorrow(NULL) == NULL);
}

static void check_versions(void) {
    static const struct {
        SaVersionT asked;
        SaAisErrorT answer;
    } table[] = {
        {{'B', 1, 1}, SA_AIS_OK},
        {{'B', 2, 2}, SA_AIS_OK},
        {{'B', 2, 99}, SA_AIS_OK},
        {{'B', 3, 1}, SA_AIS_ERR_VERSION},
        {{'A', 1, 1}, SA_AIS_ERR_VERSION},
        {{'C', 1, 1}, SA_AIS_ERR_VERSION},
        {{0, 0, 0}, SA_AIS_ERR_VERSION},
        {{255, 255, 255}, SA_AIS_ERR_VERSION},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        SaVersionT version = table[row].asked;
        SaCkptHandleT client = NOWHERE;
        IS(table[row].answer, saCkptInitialize(&client, NULL, &version));
        THAT(version.releaseCode == 'B' && version.majorVersion == 2 && version.minorVersion == 3);
        if (table[row].answer == SA_AIS_OK) {
            THAT(client != 0 && client != NOWHERE);
            OK(saCkptFinalize(client));
        } else {
            THAT(client == 0);
        }
    }
}

void check_lifecycle(void) {
    check_versions();
    SaCkptHandleT first = client_of(2, 2), second = client_of(1, 1);
    THAT(first != second);

    SaSelectionObjectT one = NOWHERE, again = 0, two = NOWHERE;
    OK(saCkptSelectionObjectGet(first, &one));
    OK(saCkptSelectionObjectGet(first, &again));
    OK(saCkptSelectionObjectGet(second, &two));
    THAT(one == again);
    THAT(one != two);
    THAT(!readable(one, 0));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSelectionObjectGet(NOWHERE, &again));

    /* without callbacks it is valid as well */
    SaCkptHandleT silent;
    SaVersionT version = {'B', 1, 1};
    SaSelectionObjectT three = NOWHERE;
    OK(saCkptInitialize(&silent, NULL, &version));
    OK(saCkptSelectionObjectGet(silent, &three));
    THAT(fcntl((int)three, F_GETFD) != -1);
    OK(saCkptDispatch(silent, SA_DISPATCH_ALL));
    OK(saCkptFinalize(silent));

    /* what finalize ends */
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint =
        opened(first, "c-lifecycle", &attributes, CREATE | READ | WRITE);
    OK(create(checkpoint, "1", "data"));
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    OK(saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    OK(saCkptSectionIterationNext(iteration, &descriptor));
    OK(saCkptFinalize(first));
    errno = 0;
    THAT(fcntl((int)one, F_GETFD) == -1 && errno == EBADF);
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptFinalize(first));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(first, SA_DISPATCH_ALL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSelectionObjectGet(first, &again));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(checkpoint));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationNext(iteration, &descriptor));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationFinalize(iteration));
    IS(SA_AIS_ERR_BAD_HANDLE, create(checkpoint, "2", "data"));

    /* retention 0: closed by finalize means gone; and the other client goes on */
    SaNameT name = name_of("c-lifecycle");
    IS(SA_AIS_ERR_NOT_EXIST,
       saCkptCheckpointOpen(second, &name, NULL, READ, WAIT, &checkpoint));
    OK(saCkptFinalize(second));
}

struct blocking {
    SaCkptHandleT client;
    SaAisErrorT rc;
    int done;
};

static void *dispatch_blocking(void *argument) {
    struct blocking *blocking = argument;
    blocking->rc = saCkptDispatch(blocking->client, SA_DISPATCH_BLOCKING);
    __atomic_store_n(&blocking->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static SaCkptHandleT finalized_inside;
static void finalize_inside(SaInvocationT invocation, SaAisErrorT error) {
    (void)invocation;
    (void)error;
    synchronizations++;
    OK(saCkptFinalize(finalized_inside));
}

void check_dispatch(void) {
    SaCkptHandleT client = client_of(1, 1);
    SaSelectionObjectT descriptor;
    OK(saCkptSelectionObjectGet(client, &descriptor));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(NOWHERE, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptDispatch(client, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptDispatch(client, 4));
    OK(saCkptDispatch(client, SA_DISPATCH_ONE));
    OK(saCkptDispatch(client, SA_DISPATCH_ALL));

    SaCkptCheckpointCreationAttributesT attributes =
        attributes_of(SA_CKPT_WR_ACTIVE_REPLICA_WEAK | SA_CKPT_CHECKPOINT_COLLOCATED);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-dispatch", &attributes, CREATE | READ | WRITE);
    OK(saCkptActiveReplicaSet(checkpoint));
    synchronizations = 0;
    for (SaInvocationT invocation = 1; invocation <= 3; invocation++)
        OK(saCkptCheckpointSynchronizeAsync(checkpoint, invocation));
    THAT(readable(descriptor, 30000));
    THAT(synchronizations == 0); /* only dispatch calls back */
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    THAT(epoll_ctl(epoll, EPOLL_CTL_ADD, (int)descriptor, &event) == 0);
    THAT(epoll_wait(epoll, &event, 1, 30000) == 1);
    close(epoll);
    fd_set set;
    FD_ZERO(&set);
    FD_SET((int)descriptor, &set);
    struct timeval wait = {30, 0};
    THAT(select((int)descriptor + 1, &set, NULL, NULL, &wait) == 1);
    OK(saCkptDispatch(client, SA_DISPATCH_ONE));
    THAT(synchronizations == 1);
    OK(dispatch_until(client, &synchronizations, 3));
    THAT(synchronizations == 3 && last_error == SA_AIS_OK);
    THAT(!readable(descriptor, 0));

    /* blocking: serves until finalize, which another thread may call */
    struct blocking blocking = {client, 0, 0};
    pthread_t thread;
    THAT(pthread_create(&thread, NULL, dispatch_blocking, &blocking) == 0);
    OK(saCkptCheckpointSynchronizeAsync(checkpoint, 4));
    for (int tries = 0; tries < 3000 && *(volatile int *)&synchronizations < 4; tries++)
        usleep(10000);
    THAT(synchronizations == 4);
    THAT(!__atomic_load_n(&blocking.done, __ATOMIC_ACQUIRE));
    OK(saCkptFinalize(client));
    pthread_join(thread, NULL);
    OK(blocking.rc);

    /* a callback may finalize its own client */
    SaCkptCallbacksT callbacks = {NULL, finalize_inside};
    SaVersionT version = {'B', 1, 1};
    OK(saCkptInitialize(&finalized_inside, &callbacks, &version));
    checkpoint = opened(finalized_inside, "c-dispatch", &attributes, CREATE | WRITE);
    OK(saCkptActiveReplicaSet(checkpoint));
    synchronizations = 0;
    OK(saCkptCheckpointSynchronizeAsync(checkpoint, 1));
    OK(saCkptDispatch(finalized_inside, SA_DISPATCH_BLOCKING));
    THAT(synchronizations == 1);
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(finalized_inside, SA_DISPATCH_ALL));
}

/* A child cannot use what its parent has, nothing it tries harms the parent; it may begin anew. */
void check_fork(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-fork", &attributes, CREATE | READ | WRITE);
    OK(create(checkpoint, "1", "data"));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        SaCkptHandleT own = 0;
        SaVersionT version = {'B', 2, 2};
        IS(SA_AIS_ERR_BAD_HANDLE, create(checkpoint, "2", "data"));
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(checkpoint));
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptDispatch(client, SA_DISPATCH_BLOCKING));
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptFinalize(client));
        OK(saCkptInitialize(&own, NULL, &version));
        SaCkptCheckpointHandleT mine = opened(own, "c-fork", NULL, READ | WRITE);
        OK(create(mine, "3", "data"));
        OK(saCkptFinalize(own));
        fflush(stdout);
        _exit(failures);
    }
    int status = 0;
    THAT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    IS(SA_AIS_ERR_EXIST, create(checkpoint, "1", "data"));
    OK(create(checkpoint, "2", "data"));
    IS(SA_AIS_ERR_EXIST, create(checkpoint, "3", "data"));
    OK(saCkptFinalize(client));
}
