/*
 * csa103 in plain C: a counter that survives the death of the process that counts.
 *
 * Start it twice. Both processes open the checkpoint; the one that is told "active" takes over the
 * active replica, reads where the other one was, and counts on. Kill it with kill -9, tell the
 * other one "active", and it goes on with the next number. In production the word comes from a
 * cluster manager (AMF); here it comes from standard input, so that there is nothing else to see.
 *
 *     raftckpt dev                                  in one terminal; prints the endpoints
 *     make PKG_CONFIG_PATH=DIR/lib/pkgconfig        DIR: where saf-library install put it
 *     export RAFTCKPT_ENDPOINTS=...
 *     ./counter                                     in two terminals; type "active" in one of them
 *
 * One thread does everything: select() waits for standard input, for the checkpoint service and
 * for the time of the next number.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include <saCkpt.h>

#define CKPT_NAME "csa103Ckpt"
#define SECTION_NAME "1"

static SaCkptHandleT library;
static SaCkptCheckpointHandleT checkpoint;
static SaCkptSectionIdT section = {1, (SaUint8T *)SECTION_NAME};

static void open_completed(SaInvocationT invocation, SaCkptCheckpointHandleT handle,
                           SaAisErrorT error) {
    (void)handle;
    printf("open [%llu] completed: %d\n", invocation, error);
}

/* Called from saCkptDispatch(): all replicas have the number. */
static void synchronize_completed(SaInvocationT invocation, SaAisErrorT error) {
    if (error == SA_AIS_OK)
        printf("Checkpoint synchronize [%llu] completed\n", invocation);
    else
        printf("Checkpoint synchronize [%llu] failed: %d\n", invocation, error);
}

static SaAisErrorT checkpoint_initialize(void) {
    SaVersionT version = {'B', 1, 1};
    SaCkptCallbacksT callbacks = {open_completed, synchronize_completed};
    SaAisErrorT rc = saCkptInitialize(&library, &callbacks, &version);
    if (rc != SA_AIS_OK) {
        fprintf(stderr, "saCkptInitialize: %d\n", rc);
        return rc;
    }
    SaNameT name = {sizeof CKPT_NAME - 1, CKPT_NAME};
    SaCkptCheckpointCreationAttributesT attributes = {
        .creationFlags = SA_CKPT_WR_ACTIVE_REPLICA_WEAK | SA_CKPT_CHECKPOINT_COLLOCATED,
        .checkpointSize = sizeof(SaUint32T),
        .retentionDuration = 10, /* ns: gone when the last process has closed it */
        .maxSections = 2,
        .maxSectionSize = sizeof(SaUint32T),
        .maxSectionIdSize = 64,
    };
    rc = saCkptCheckpointOpen(
        library, &name, &attributes,
        SA_CKPT_CHECKPOINT_CREATE | SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE,
        SA_TIME_MAX, &checkpoint);
    if (rc != SA_AIS_OK)
        fprintf(stderr, "saCkptCheckpointOpen: %d\n", rc);
    return rc;
}

/* Write the next number to be said. An outcome unknown or a try-again is repeated: it is the same
 * number, so doing it twice does no harm. */
static SaAisErrorT checkpoint_write(SaUint32T number) {
    SaUint32T data = htonl(number);
    SaAisErrorT rc;
    do {
        rc = saCkptSectionOverwrite(checkpoint, &section, &data, sizeof data);
        if (rc == SA_AIS_ERR_NOT_EXIST) {
            SaCkptSectionCreationAttributesT attributes = {&section, SA_TIME_END};
            rc = saCkptSectionCreate(checkpoint, &attributes, &data, sizeof data);
        }
    } while (rc == SA_AIS_ERR_TRY_AGAIN || rc == SA_AIS_ERR_TIMEOUT || rc == SA_AIS_ERR_EXIST);
    if (rc == SA_AIS_OK)
        rc = saCkptCheckpointSynchronizeAsync(checkpoint, number);
    return rc;
}

/* Take over: become the active replica and read where the last one was. */
static SaAisErrorT become_active(SaUint32T *number) {
    SaAisErrorT rc;
    do {
        rc = saCkptActiveReplicaSet(checkpoint);
    } while (rc == SA_AIS_ERR_TRY_AGAIN || rc == SA_AIS_ERR_TIMEOUT);
    if (rc != SA_AIS_OK)
        return rc;
    SaUint32T data = 0, wrong;
    SaCkptIOVectorElementT element = {
        .sectionId = section, .dataBuffer = &data, .dataSize = sizeof data, .dataOffset = 0};
    do {
        rc = saCkptCheckpointRead(checkpoint, &element, 1, &wrong);
    } while (rc == SA_AIS_ERR_TRY_AGAIN || rc == SA_AIS_ERR_TIMEOUT);
    if (rc == SA_AIS_ERR_NOT_EXIST) { /* nobody has counted yet */
        *number = 0;
        return SA_AIS_OK;
    }
    *number = ntohl(data);
    return rc;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* One line of standard input; 0 at its end. */
static int obey(int *active, SaUint32T *number) {
    char line[64];
    ssize_t length = read(STDIN_FILENO, line, sizeof line - 1);
    if (length <= 0)
        return 0;
    line[length] = '\0';
    if (strncmp(line, "quit", 4) == 0)
        return 0;
    if (strncmp(line, "active", 6) == 0 && !*active) {
        SaAisErrorT rc = become_active(number);
        if (rc != SA_AIS_OK) {
            fprintf(stderr, "cannot become active: %d\n", rc);
            return 0;
        }
        *active = 1;
        printf("Active from %u\n", *number);
    }
    return 1;
}

int main(int argc, char **argv) {
    double period = argc > 1 ? atof(argv[1]) : 1.0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (checkpoint_initialize() != SA_AIS_OK)
        return 1;
    SaSelectionObjectT dispatch_fd;
    if (saCkptSelectionObjectGet(library, &dispatch_fd) != SA_AIS_OK)
        return 1;
    printf("Ready, process %d\n", (int)getpid());

    int active = 0, status = 0;
    SaUint32T number = 0;
    double due = now();
    for (;;) {
        fd_set readable;
        FD_ZERO(&readable);
        FD_SET(STDIN_FILENO, &readable);
        FD_SET((int)dispatch_fd, &readable);
        double rest = due - now();
        struct timeval timeout = {0, 0};
        if (rest > 0) {
            timeout.tv_sec = (time_t)rest;
            timeout.tv_usec = (suseconds_t)((rest - (double)timeout.tv_sec) * 1e6);
        }
        if (select((int)dispatch_fd + 1, &readable, NULL, NULL, active ? &timeout : NULL) < 0) {
            if (errno == EINTR)
                continue;
            perror("select");
            return 1;
        }
        if (FD_ISSET((int)dispatch_fd, &readable)) {
            SaAisErrorT rc = saCkptDispatch(library, SA_DISPATCH_ALL);
            if (rc != SA_AIS_OK) {
                fprintf(stderr, "saCkptDispatch: %d\n", rc);
                return 1;
            }
        }
        if (FD_ISSET(STDIN_FILENO, &readable) && !obey(&active, &number))
            break;
        if (active && now() >= due) {
            printf("Hello World! (seq=%u)\n", number++);
            SaAisErrorT rc = checkpoint_write(number);
            if (rc != SA_AIS_OK) {
                fprintf(stderr, "checkpoint_write: %d\n", rc);
                status = 1;
                break;
            }
            printf("Checkpointed %u\n", number);
            due = now() + period;
        }
    }
    saCkptCheckpointClose(checkpoint);
    saCkptFinalize(library);
    return status;
}
