/*
 * Every function of libSaCkpt.so, and every return code of the specification's tables that can be
 * provoked on a healthy cluster. Prints what deviates; exits with 1 if anything does.
 *
 *     RAFTCKPT_ENDPOINTS=... ./conformance [part ...]
 */
#include "check.h"

int checks, failures;
int opens, synchronizations;
SaInvocationT last_invocation;
SaCkptCheckpointHandleT last_checkpoint;
SaAisErrorT last_error;

static void open_completed(SaInvocationT invocation, SaCkptCheckpointHandleT checkpoint,
                           SaAisErrorT error) {
    opens++;
    last_invocation = invocation;
    last_checkpoint = checkpoint;
    last_error = error;
}

static void synchronize_completed(SaInvocationT invocation, SaAisErrorT error) {
    synchronizations++;
    last_invocation = invocation;
    last_error = error;
}

SaNameT name_of(const char *text) {
    SaNameT name = {0};
    name.length = (SaUint16T)strlen(text);
    memcpy(name.value, text, name.length);
    return name;
}

SaCkptSectionIdT section_of(const char *text) {
    SaCkptSectionIdT section = {(SaUint16T)strlen(text), (SaUint8T *)text};
    return section;
}

SaCkptCheckpointCreationAttributesT attributes_of(SaUint32T flags) {
    SaCkptCheckpointCreationAttributesT attributes = {
        .creationFlags = flags,
        .checkpointSize = 400,
        .retentionDuration = 0,
        .maxSections = 4,
        .maxSectionSize = 100,
        .maxSectionIdSize = 10,
    };
    return attributes;
}

SaCkptHandleT client_of(SaUint8T major, SaUint8T minor) {
    SaCkptCallbacksT callbacks = {open_completed, synchronize_completed};
    SaVersionT version = {'B', major, minor};
    SaCkptHandleT client = 0;
    OK(saCkptInitialize(&client, &callbacks, &version));
    return client;
}

SaCkptCheckpointHandleT opened(SaCkptHandleT client, const char *text,
                               const SaCkptCheckpointCreationAttributesT *attributes,
                               SaUint32T flags) {
    SaNameT name = name_of(text);
    SaCkptCheckpointHandleT checkpoint = 0;
    OK(saCkptCheckpointOpen(client, &name, attributes, flags, WAIT, &checkpoint));
    return checkpoint;
}

SaAisErrorT create(SaCkptCheckpointHandleT checkpoint, const char *text, const char *data) {
    SaCkptSectionIdT section = section_of(text);
    SaCkptSectionCreationAttributesT attributes = {&section, SA_TIME_END};
    return saCkptSectionCreate(checkpoint, &attributes, data, data != NULL ? strlen(data) : 0);
}

SaCkptIOVectorElementT element(const char *section, void *data, SaSizeT size, SaOffsetT offset) {
    SaCkptIOVectorElementT element = {section_of(section), data, size, offset, 0};
    return element;
}

SaTimeT in_seconds(double seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * SECOND + now.tv_nsec + (SaTimeT)(seconds * (double)SECOND);
}

int readable(SaSelectionObjectT descriptor, int milliseconds) {
    struct pollfd polled = {(int)descriptor, POLLIN, 0};
    return poll(&polled, 1, milliseconds) == 1 && (polled.revents & POLLIN) != 0;
}

SaAisErrorT dispatch_until(SaCkptHandleT client, int *counter, int count) {
    SaSelectionObjectT descriptor;
    SaAisErrorT rc = saCkptSelectionObjectGet(client, &descriptor);
    while (rc == SA_AIS_OK && *counter < count) {
        if (!readable(descriptor, 30000))
            return SA_AIS_ERR_TIMEOUT;
        rc = saCkptDispatch(client, SA_DISPATCH_ALL);
    }
    return rc;
}

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {
    {"null-pointers", check_null_pointers},
    {"names", check_names},
    {"lifecycle", check_lifecycle},
    {"dispatch", check_dispatch},
    {"open", check_open},
    {"checkpoints", check_checkpoints},
    {"sections", check_sections},
    {"iteration", check_iteration},
    {"data", check_data},
    {"synchronize", check_synchronize},
    {"tracking", check_tracking},
    {"stacks", check_stacks},
    {"cancellation", check_cancellation},
    {"fork", check_fork},
    {"fork-from-a-small-stack", check_fork_from_a_small_stack},
};

int main(int argc, char **argv) {
    int known = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t part = 0; part < sizeof parts / sizeof *parts; part++) {
        int wanted = argc == 1;
        for (int argument = 1; argument < argc; argument++)
            wanted |= strcmp(argv[argument], parts[part].name) == 0;
        if (!wanted)
            continue;
        known++;
        parts[part].run();
    }
    printf("%d parts, %d checks, %d failures\n", known, checks, failures);
    return failures == 0 && known >= (argc == 1 ? 1 : argc - 1) ? 0 : 1;
}
