/*
 * What programs of openais and SAFplus do and the standard does not know: it works if
 * RAFTCKPT_SAF_COMPAT says so, and not otherwise.
 *
 *     RAFTCKPT_ENDPOINTS=... [RAFTCKPT_SAF_COMPAT=...] ./habits
 */
#include <saCkptTracking.h>

#include "check.h"

int checks, failures;

#define CL_CKPT_DISTRIBUTED 0x10
#define CL_CKPT_PEER_TO_PEER_REPLICA 0x80
#define CL_ERR_NOT_EXIST 4
#define CL_GET_ERROR_CODE(rc) ((rc)&0xffff)

static SaCkptHandleT client;
static int consumed;

static SaUint32T consume(SaUint64T checkpoint, SaNameT *name, SaCkptIOVectorElementT *vector,
                         SaUint32T count, void *cookie) {
    (void)checkpoint;
    (void)name;
    (void)cookie;
    if (count == 1 && vector->dataSize == 3 && memcmp(vector->dataBuffer, "hot", 3) == 0)
        __atomic_store_n(&consumed, 1, __ATOMIC_RELEASE);
    return 0;
}

/* As openais' programs do: no timeout. */
static SaAisErrorT open_at_once(void) {
    SaNameT name = {8, "c-habits"};
    SaCkptCheckpointHandleT checkpoint;
    SaCkptCheckpointCreationAttributesT attributes = {SA_CKPT_WR_ALL_REPLICAS, 10, 0, 5, 10, 9};
    return saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, 0, &checkpoint);
}

/* As SAFplus's hot standby does. */
static SaAisErrorT open_distributed(SaCkptHandleT at, SaUint32T flags,
                                    SaCkptCheckpointHandleT *checkpoint) {
    SaNameT name = {13, "c-distributed"};
    SaCkptCheckpointCreationAttributesT attributes = {flags, 0, (SaTimeT)-1, 2, 100, 4};
    return saCkptCheckpointOpen(at, &name, &attributes, CREATE | READ | WRITE, (SaTimeT)-1,
                                checkpoint);
}

static void hot_standby(void) {
    SaUint32T flags =
        SA_CKPT_CHECKPOINT_COLLOCATED | CL_CKPT_DISTRIBUTED | CL_CKPT_PEER_TO_PEER_REPLICA;
    SaVersionT version = {'B', 1, 1};
    SaNameT name = {13, "c-distributed"};
    SaCkptHandleT standby;
    SaCkptCheckpointHandleT active, hot;
    SaUint32T number = 1;
    SaCkptSectionIdT section = {sizeof number, (SaUint8T *)&number};
    SaCkptSectionCreationAttributesT creation = {&section, (SaTimeT)-1};
    OK(saCkptInitialize(&standby, NULL, &version));
    OK(open_distributed(client, flags, &active));
    OK(open_distributed(standby, flags, &hot));
    IS(0, clCkptImmediateConsumptionRegister(hot, consume, NULL));
    OK(saCkptActiveReplicaSet(active));
    IS(CL_ERR_NOT_EXIST, CL_GET_ERROR_CODE(clCkptSectionCheck(active, &section)));
    OK(saCkptSectionCreate(active, &creation, NULL, 0));
    IS(0, clCkptSectionCheck(active, &section));
    OK(saCkptSectionOverwrite(active, &section, "hot", 3));
    for (int tries = 0; tries < 3000 && !__atomic_load_n(&consumed, __ATOMIC_ACQUIRE); tries++)
        usleep(10000);
    THAT(consumed);
    OK(saCkptCheckpointSynchronize(active, (SaTimeT)-1));
    OK(saCkptCheckpointUnlink(client, &name)); /* which nobody retains */
    OK(saCkptFinalize(standby));
}

int main(void) {
    const char *compat = getenv("RAFTCKPT_SAF_COMPAT");
    int openais = compat != NULL && strstr(compat, "openais") != NULL;
    int safplus = compat != NULL && strstr(compat, "safplus") != NULL;
    SaVersionT version = {'B', 1, 1};
    SaCkptCheckpointHandleT checkpoint;
    SaCkptCheckpointCreationAttributesT attributes = {SA_CKPT_WR_ALL_REPLICAS, 10, 0, 5, 10, 9};
    SaNameT name = {7, "c-check"};
    SaCkptSectionIdT section = {1, (SaUint8T *)"1"}, impossible = {3, NULL};
    OK(saCkptInitialize(&client, NULL, &version));
    IS(openais ? SA_AIS_OK : SA_AIS_ERR_TIMEOUT, open_at_once());
    if (safplus)
        hot_standby();
    else
        IS(SA_AIS_ERR_INVALID_PARAM,
           open_distributed(client, SA_CKPT_WR_ALL_REPLICAS | CL_CKPT_DISTRIBUTED, &checkpoint));
    IS(0x160005, clCkptSectionCheck(NOWHERE, &section));
    IS(0x160002, clCkptSectionCheck(NOWHERE, NULL));
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ, WAIT, &checkpoint));
    IS(0x160002, clCkptSectionCheck(checkpoint, &impossible));
    IS(0x160004, clCkptSectionCheck(checkpoint, &section));
    OK(saCkptFinalize(client));
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
