/* Open in all its ways, close, unlink, retention, active replica, status. */
#include "check.h"

static SaAisErrorT try_open(SaCkptHandleT client, const char *text,
                            const SaCkptCheckpointCreationAttributesT *attributes, SaUint32T flags,
                            SaTimeT timeout) {
    SaNameT name = name_of(text);
    SaCkptCheckpointHandleT checkpoint = 0;
    SaAisErrorT rc = saCkptCheckpointOpen(client, &name, attributes, flags, timeout, &checkpoint);
    if (rc == SA_AIS_OK)
        OK(saCkptCheckpointClose(checkpoint));
    return rc;
}

static void check_attributes(SaCkptHandleT client) {
    SaCkptCheckpointCreationAttributesT good = attributes_of(SA_CKPT_WR_ALL_REPLICAS), bad;
#define REFUSED(change)                                                                      \
    do {                                                                                     \
        bad = good;                                                                          \
        change;                                                                              \
        IS(SA_AIS_ERR_INVALID_PARAM, try_open(client, "c-open", &bad, CREATE, WAIT));        \
        IS(SA_AIS_ERR_INVALID_PARAM, try_open(NOWHERE, "c-open", &bad, CREATE, WAIT));       \
    } while (0)
    REFUSED(bad.creationFlags = 0);
    REFUSED(bad.creationFlags = SA_CKPT_CHECKPOINT_COLLOCATED);
    REFUSED(bad.creationFlags = SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_WR_ACTIVE_REPLICA);
    REFUSED(bad.creationFlags = 7);
    REFUSED(bad.creationFlags = 0x80000001);
    REFUSED(bad.checkpointSize = 401);
    REFUSED(bad.retentionDuration = -1);
    REFUSED(bad.maxSections = 0);
#undef REFUSED
}

void check_open(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    check_attributes(client);
    IS(SA_AIS_ERR_INVALID_PARAM, try_open(client, "", &attributes, CREATE, WAIT));
    IS(SA_AIS_ERR_INVALID_PARAM, try_open(client, "c-open", &attributes, CREATE, -1));
    IS(SA_AIS_ERR_BAD_FLAGS, try_open(client, "c-open", NULL, 0, WAIT));
    IS(SA_AIS_ERR_BAD_FLAGS, try_open(client, "c-open", NULL, READ | 8, WAIT));
    IS(SA_AIS_ERR_BAD_FLAGS, try_open(client, "c-open", &attributes, 0xffffffff, WAIT));
    IS(SA_AIS_ERR_INVALID_PARAM, try_open(client, "c-open", NULL, CREATE, WAIT));
    IS(SA_AIS_ERR_INVALID_PARAM, try_open(client, "c-open", &attributes, READ, WAIT));
    IS(SA_AIS_ERR_BAD_HANDLE, try_open(NOWHERE, "c-open", &attributes, CREATE, WAIT));
    IS(SA_AIS_ERR_NOT_EXIST, try_open(client, "c-open", NULL, READ, WAIT));
    OK(try_open(client, "c-open", &attributes, CREATE, SA_TIME_MAX));

    /* no time at all; whatever became of it, no opener stays behind */
    IS(SA_AIS_ERR_TIMEOUT, try_open(client, "c-timeout", &attributes, CREATE, 0));
    for (int tries = 0; tries < 300; tries++) {
        if (try_open(client, "c-timeout", NULL, READ, WAIT) == SA_AIS_ERR_NOT_EXIST)
            break;
        usleep(100000);
    }
    IS(SA_AIS_ERR_NOT_EXIST, try_open(client, "c-timeout", NULL, READ, WAIT));

    /* again, with the same attributes and with others */
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-open", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointCreationAttributesT other = attributes;
    other.maxSectionSize++;
    IS(SA_AIS_ERR_EXIST, try_open(client, "c-open", &other, CREATE, WAIT));
    other = attributes;
    other.retentionDuration = 5 * SECOND;
    OK(try_open(client, "c-open", &other, CREATE, WAIT)); /* not compared since B.02 */
    SaCkptHandleT old = client_of(1, 1);
    IS(SA_AIS_ERR_EXIST, try_open(old, "c-open", &other, CREATE, WAIT));
    OK(try_open(old, "c-open", &attributes, CREATE | READ, WAIT));
    OK(saCkptFinalize(old));

    /* a NUL that is counted, and what follows one, belongs to no name */
    SaNameT counted = name_of("c-open");
    SaCkptCheckpointHandleT same = 0;
    memcpy(counted.value + counted.length + 1, "more", 4);
    for (SaUint16T more = 1; more <= 5; more += 4) {
        counted.length = (SaUint16T)(strlen("c-open") + more);
        OK(saCkptCheckpointOpen(client, &counted, NULL, READ, WAIT, &same));
        OK(saCkptCheckpointClose(same));
        OK(saCkptCheckpointOpen(client, &counted, &attributes, CREATE | READ, WAIT, &same));
        OK(saCkptCheckpointClose(same));
    }
    static const char *const no_names[] = {"\0", "\xff\xfe", "half \xc3"};
    for (size_t which = 0; which < sizeof no_names / sizeof *no_names; which++) {
        SaNameT none = name_of(no_names[which]);
        none.length += which == 0; /* nothing before a NUL; the others are no UTF-8 */
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpen(client, &none, NULL, READ, WAIT, &same));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(client, 1, &none, NULL, READ));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointUnlink(client, &none));
    }

    /* asynchronously */
    SaNameT name = name_of("c-open"), missing = name_of("c-missing"), empty = name_of("");
    opens = 0;
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(client, 1, &empty, NULL, READ));
    IS(SA_AIS_ERR_BAD_FLAGS, saCkptCheckpointOpenAsync(client, 1, &name, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(client, 1, &name, NULL, CREATE));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointOpenAsync(NOWHERE, 1, &name, NULL, READ));
    OK(saCkptCheckpointOpenAsync(client, 0, &name, NULL, READ | WRITE));
    OK(dispatch_until(client, &opens, 1));
    THAT(last_invocation == 0 && last_error == SA_AIS_OK && last_checkpoint != checkpoint);
    OK(create(last_checkpoint, "1", "data"));
    OK(saCkptCheckpointClose(last_checkpoint));
    OK(saCkptCheckpointOpenAsync(client, 0xffffffffffffffffULL, &missing, NULL, READ));
    OK(dispatch_until(client, &opens, 2));
    THAT(last_invocation == 0xffffffffffffffffULL && last_error == SA_AIS_ERR_NOT_EXIST);
    other = attributes;
    other.maxSections--;
    other.checkpointSize = 100;
    OK(saCkptCheckpointOpenAsync(client, 7, &name, &other, CREATE));
    OK(dispatch_until(client, &opens, 3));
    THAT(last_invocation == 7 && last_error == SA_AIS_ERR_EXIST);
    SaCkptHandleT silent;
    SaVersionT version = {'B', 2, 2};
    OK(saCkptInitialize(&silent, NULL, &version));
    IS(SA_AIS_ERR_INIT, saCkptCheckpointOpenAsync(silent, 1, &name, NULL, READ));
    OK(saCkptFinalize(silent));
    OK(saCkptFinalize(client));
}

static void check_status(SaCkptHandleT client) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-status", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointDescriptorT status;
    memset(&status, 0xff, sizeof status);
    OK(create(checkpoint, "1", "0123456789"));
    OK(create(checkpoint, "2", "01234"));
    OK(saCkptCheckpointStatusGet(checkpoint, &status));
    THAT(memcmp(&status.checkpointCreationAttributes.creationFlags, &attributes.creationFlags,
                sizeof attributes.creationFlags) == 0);
    THAT(status.checkpointCreationAttributes.checkpointSize == 400);
    THAT(status.checkpointCreationAttributes.retentionDuration == 0);
    THAT(status.checkpointCreationAttributes.maxSections == 4);
    THAT(status.checkpointCreationAttributes.maxSectionSize == 100);
    THAT(status.checkpointCreationAttributes.maxSectionIdSize == 10);
    THAT(status.numberOfSections == 2);
    THAT(status.memoryUsed == 15);
    OK(saCkptCheckpointRetentionDurationSet(checkpoint, 20 * SECOND));
    OK(saCkptCheckpointStatusGet(checkpoint, &status));
    THAT(status.checkpointCreationAttributes.retentionDuration == 20 * SECOND);
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointStatusGet(NOWHERE, &status));
    SaCkptCheckpointHandleT writer = opened(client, "c-status", NULL, WRITE);
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointStatusGet(writer, &status));
    OK(saCkptCheckpointRetentionDurationSet(checkpoint, 0));

    SaCkptHandleT old = client_of(1, 1); /* B.01 knows no such right */
    writer = opened(old, "c-status", NULL, WRITE);
    OK(saCkptCheckpointStatusGet(writer, &status));
    OK(saCkptFinalize(old));

    SaCkptCheckpointCreationAttributesT one = attributes;
    one.maxSections = 1;
    one.checkpointSize = 100;
    SaCkptCheckpointHandleT single = opened(client, "c-default", &one, CREATE | READ);
    OK(saCkptCheckpointStatusGet(single, &status));
    THAT(status.numberOfSections == 1 && status.memoryUsed == 0);
}

static void check_retention_and_unlink(SaCkptHandleT client) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT writer =
        opened(client, "c-unlink", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-unlink", NULL, READ);
    SaNameT name = name_of("c-unlink");
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRetentionDurationSet(writer, -1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRetentionDurationSet(NOWHERE, -1));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointRetentionDurationSet(NOWHERE, 0));
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointRetentionDurationSet(reader, 0));
    OK(saCkptCheckpointRetentionDurationSet(writer, SA_TIME_END));
    OK(saCkptCheckpointClose(reader));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(reader));
    OK(saCkptCheckpointClose(writer)); /* kept: the retention is for ever now */
    writer = opened(client, "c-unlink", NULL, READ | WRITE);

    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointUnlink(NOWHERE, &name));
    name.length++; /* the NUL is counted */
    OK(saCkptCheckpointUnlink(client, &name));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointUnlink(client, &name));
    IS(SA_AIS_ERR_NOT_EXIST, try_open(client, "c-unlink", NULL, READ, WAIT));
    IS(SA_AIS_ERR_BAD_OPERATION, saCkptCheckpointRetentionDurationSet(writer, 0));
    OK(create(writer, "1", "data")); /* handles go on */
    SaCkptCheckpointHandleT fresh = opened(client, "c-unlink", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointDescriptorT status;
    OK(saCkptCheckpointStatusGet(fresh, &status));
    THAT(status.numberOfSections == 0); /* another checkpoint of the same name */
    OK(saCkptCheckpointClose(writer));
    OK(saCkptCheckpointUnlink(client, &name));
    OK(saCkptCheckpointClose(fresh));
}

void check_checkpoints(void) {
    SaCkptHandleT client = client_of(2, 2);
    check_status(client);
    check_retention_and_unlink(client);
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(NOWHERE));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointClose(client)); /* a handle of another kind */

    /* the active replica */
    SaCkptCheckpointCreationAttributesT all =
        attributes_of(SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED);
    SaCkptCheckpointCreationAttributesT spread = attributes_of(SA_CKPT_WR_ACTIVE_REPLICA);
    SaCkptCheckpointCreationAttributesT weak =
        attributes_of(SA_CKPT_WR_ACTIVE_REPLICA_WEAK | SA_CKPT_CHECKPOINT_COLLOCATED);
    SaCkptCheckpointHandleT checkpoint = opened(client, "c-all", &all, CREATE | READ | WRITE);
    IS(SA_AIS_ERR_BAD_OPERATION, saCkptActiveReplicaSet(checkpoint));
    OK(create(checkpoint, "1", "data"));
    checkpoint = opened(client, "c-spread", &spread, CREATE | READ | WRITE);
    IS(SA_AIS_ERR_BAD_OPERATION, saCkptActiveReplicaSet(checkpoint));
    OK(create(checkpoint, "1", "data"));

    checkpoint = opened(client, "c-weak", &weak, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-weak", NULL, READ);
    SaCkptCheckpointDescriptorT status;
    SaCkptSectionIdT section = section_of("1");
    SaCkptSectionIterationHandleT iteration;
    char buffer[4] = {0};
    SaCkptIOVectorElementT vector = element("1", buffer, sizeof buffer, 0);
    /* there is none yet */
    IS(SA_AIS_ERR_NOT_EXIST, create(checkpoint, "1", "data"));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionDelete(checkpoint, &section));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionExpirationTimeSet(checkpoint, &section, SA_TIME_END));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionOverwrite(checkpoint, &section, "x", 1));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointWrite(checkpoint, &vector, 1, NULL));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointRead(checkpoint, &vector, 1, NULL));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointStatusGet(checkpoint, &status));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0,
                                                              &iteration));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointSynchronize(checkpoint, WAIT));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointSynchronizeAsync(checkpoint, 1));
    IS(SA_AIS_ERR_ACCESS, saCkptActiveReplicaSet(reader));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptActiveReplicaSet(NOWHERE));
    OK(saCkptActiveReplicaSet(checkpoint));
    OK(saCkptActiveReplicaSet(checkpoint));
    OK(create(checkpoint, "1", "data"));
    OK(saCkptCheckpointRead(reader, &vector, 1, NULL));
    THAT(vector.readSize == 4 && memcmp(buffer, "data", 4) == 0);
    OK(saCkptFinalize(client));
}
