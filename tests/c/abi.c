/* The ABI of AIS B.02 on 64-bit machines, checked while this file is compiled. */
#include <stddef.h>

#include <saCkpt_B_02_03.h>

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)
#define AT(type, field, offset) \
    _Static_assert(offsetof(type, field) == (offset), "offset of " #type "." #field)
#define VALUE(name, value) _Static_assert((name) == (value), "value of " #name)
#define SIGNED(type) _Static_assert((type)-1 < 0, "signedness of " #type)
#define UNSIGNED(type) _Static_assert((type)-1 > 0, "signedness of " #type)

SIZE(SaInt8T, 1);
SIZE(SaInt16T, 2);
SIZE(SaInt32T, 4);
SIZE(SaInt64T, 8);
SIZE(SaUint8T, 1);
SIZE(SaUint16T, 2);
SIZE(SaUint32T, 4);
SIZE(SaUint64T, 8);
SIZE(SaFloatT, 4);
SIZE(SaDoubleT, 8);
SIZE(SaTimeT, 8);
SIZE(SaSizeT, 8);
SIZE(SaOffsetT, 8);
SIZE(SaInvocationT, 8);
SIZE(SaSelectionObjectT, 8);
SIZE(SaBoolT, 4);
SIZE(SaAisErrorT, 4);
SIZE(SaDispatchFlagsT, 4);
SIZE(SaServicesT, 4);
SIZE(SaCkptHandleT, 8);
SIZE(SaCkptCheckpointHandleT, 8);
SIZE(SaCkptSectionIterationHandleT, 8);
SIZE(SaCkptCheckpointCreationFlagsT, 4);
SIZE(SaCkptCheckpointOpenFlagsT, 4);
SIZE(SaCkptSectionStateT, 4);
SIZE(SaCkptSectionsChosenT, 4);
SIZE(SaCkptCheckpointStatusT, 4);
SIZE(SaCkptStateT, 4);
SIGNED(SaTimeT);
SIGNED(SaInt8T);
UNSIGNED(SaUint8T);
UNSIGNED(SaSizeT);
UNSIGNED(SaOffsetT);

SIZE(SaVersionT, 3);
AT(SaVersionT, releaseCode, 0);
AT(SaVersionT, majorVersion, 1);
AT(SaVersionT, minorVersion, 2);

SIZE(SaNameT, 258);
#ifdef SA_EXTENDED_NAME_SOURCE
AT(SaNameT, _opaque, 0);
#else
AT(SaNameT, length, 0);
AT(SaNameT, value, 2);
#endif

SIZE(SaAnyT, 16);
AT(SaAnyT, bufferAddr, 8);

SIZE(SaCkptCheckpointCreationAttributesT, 48);
AT(SaCkptCheckpointCreationAttributesT, creationFlags, 0);
AT(SaCkptCheckpointCreationAttributesT, checkpointSize, 8);
AT(SaCkptCheckpointCreationAttributesT, retentionDuration, 16);
AT(SaCkptCheckpointCreationAttributesT, maxSections, 24);
AT(SaCkptCheckpointCreationAttributesT, maxSectionSize, 32);
AT(SaCkptCheckpointCreationAttributesT, maxSectionIdSize, 40);

SIZE(SaCkptSectionIdT, 16);
AT(SaCkptSectionIdT, idLen, 0);
AT(SaCkptSectionIdT, id, 8);

SIZE(SaCkptSectionCreationAttributesT, 16);
AT(SaCkptSectionCreationAttributesT, sectionId, 0);
AT(SaCkptSectionCreationAttributesT, expirationTime, 8);

SIZE(SaCkptSectionDescriptorT, 48);
AT(SaCkptSectionDescriptorT, sectionId, 0);
AT(SaCkptSectionDescriptorT, expirationTime, 16);
AT(SaCkptSectionDescriptorT, sectionSize, 24);
AT(SaCkptSectionDescriptorT, sectionState, 32);
AT(SaCkptSectionDescriptorT, lastUpdate, 40);

SIZE(SaCkptIOVectorElementT, 48);
AT(SaCkptIOVectorElementT, sectionId, 0);
AT(SaCkptIOVectorElementT, dataBuffer, 16);
AT(SaCkptIOVectorElementT, dataSize, 24);
AT(SaCkptIOVectorElementT, dataOffset, 32);
AT(SaCkptIOVectorElementT, readSize, 40);

SIZE(SaCkptCheckpointDescriptorT, 64);
AT(SaCkptCheckpointDescriptorT, checkpointCreationAttributes, 0);
AT(SaCkptCheckpointDescriptorT, numberOfSections, 48);
AT(SaCkptCheckpointDescriptorT, memoryUsed, 56);

SIZE(SaCkptCallbacksT, 16);
AT(SaCkptCallbacksT, saCkptCheckpointOpenCallback, 0);
AT(SaCkptCallbacksT, saCkptCheckpointSynchronizeCallback, 8);

SIZE(SaCkptCallbacksT_2, 24);
AT(SaCkptCallbacksT_2, saCkptCheckpointOpenCallback, 0);
AT(SaCkptCallbacksT_2, saCkptCheckpointSynchronizeCallback, 8);
AT(SaCkptCallbacksT_2, saCkptCheckpointTrackCallback, 16);

VALUE(SA_TIME_BEGIN, 0);
VALUE(SA_TIME_END, 0x7FFFFFFFFFFFFFFFLL);
VALUE(SA_TIME_MAX, 0x7FFFFFFFFFFFFFFFLL);
VALUE((SaUint64T)SA_TIME_UNKNOWN, 0x8000000000000000ULL);
VALUE(SA_CKPT_WR_ALL_REPLICAS, 1);
VALUE(SA_CKPT_WR_ACTIVE_REPLICA, 2);
VALUE(SA_CKPT_WR_ACTIVE_REPLICA_WEAK, 4);
VALUE(SA_CKPT_CHECKPOINT_COLLOCATED, 8);
VALUE(SA_CKPT_CHECKPOINT_READ, 1);
VALUE(SA_CKPT_CHECKPOINT_WRITE, 2);
VALUE(SA_CKPT_CHECKPOINT_CREATE, 4);
VALUE(SA_CKPT_SECTION_VALID, 1);
VALUE(SA_CKPT_SECTION_CORRUPTED, 2);
VALUE(SA_CKPT_SECTIONS_FOREVER, 1);
VALUE(SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, 2);
VALUE(SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME, 3);
VALUE(SA_CKPT_SECTIONS_CORRUPTED, 4);
VALUE(SA_CKPT_SECTIONS_ANY, 5);
VALUE(SA_CKPT_SECTION_RESOURCES_EXHAUSTED, 1);
VALUE(SA_CKPT_SECTION_RESOURCES_AVAILABLE, 2);
VALUE(SA_CKPT_CHECKPOINT_STATUS, 1);
VALUE(SA_DISPATCH_ONE, 1);
VALUE(SA_DISPATCH_ALL, 2);
VALUE(SA_DISPATCH_BLOCKING, 3);
VALUE(SA_SVC_HPI, 1);
VALUE(SA_SVC_CKPT, 4);
VALUE(SA_SVC_MSG, 6);
VALUE(SA_SCV_LOG, 9);
VALUE(SA_SVC_LOG, 9);
VALUE(SA_SVC_PLM, 15);
VALUE(SA_FALSE, 0);
VALUE(SA_TRUE, 1);
VALUE(SA_AIS_OK, 1);
VALUE(SA_AIS_ERR_LIBRARY, 2);
VALUE(SA_AIS_ERR_VERSION, 3);
VALUE(SA_AIS_ERR_INIT, 4);
VALUE(SA_AIS_ERR_TIMEOUT, 5);
VALUE(SA_AIS_ERR_TRY_AGAIN, 6);
VALUE(SA_AIS_ERR_INVALID_PARAM, 7);
VALUE(SA_AIS_ERR_NO_MEMORY, 8);
VALUE(SA_AIS_ERR_BAD_HANDLE, 9);
VALUE(SA_AIS_ERR_BUSY, 10);
VALUE(SA_AIS_ERR_ACCESS, 11);
VALUE(SA_AIS_ERR_NOT_EXIST, 12);
VALUE(SA_AIS_ERR_NAME_TOO_LONG, 13);
VALUE(SA_AIS_ERR_EXIST, 14);
VALUE(SA_AIS_ERR_NO_SPACE, 15);
VALUE(SA_AIS_ERR_INTERRUPT, 16);
VALUE(SA_AIS_ERR_NAME_NOT_FOUND, 17);
VALUE(SA_AIS_ERR_NO_RESOURCES, 18);
VALUE(SA_AIS_ERR_NOT_SUPPORTED, 19);
VALUE(SA_AIS_ERR_BAD_OPERATION, 20);
VALUE(SA_AIS_ERR_FAILED_OPERATION, 21);
VALUE(SA_AIS_ERR_MESSAGE_ERROR, 22);
VALUE(SA_AIS_ERR_QUEUE_FULL, 23);
VALUE(SA_AIS_ERR_QUEUE_NOT_AVAILABLE, 24);
VALUE(SA_AIS_ERR_BAD_FLAGS, 25);
VALUE(SA_AIS_ERR_TOO_BIG, 26);
VALUE(SA_AIS_ERR_NO_SECTIONS, 27);
VALUE(SA_AIS_ERR_NO_OP, 28);
VALUE(SA_AIS_ERR_REPAIR_PENDING, 29);
VALUE(SA_AIS_ERR_NO_BINDINGS, 30);
VALUE(SA_AIS_ERR_UNAVAILABLE, 31);
VALUE(SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED, 32);
VALUE(SA_AIS_ERR_CAMPAIGN_PROC_FAILED, 33);
VALUE(SA_AIS_ERR_CAMPAIGN_CANCELED, 34);
VALUE(SA_AIS_ERR_CAMPAIGN_FAILED, 35);
VALUE(SA_AIS_ERR_CAMPAIGN_SUSPENDED, 36);
VALUE(SA_AIS_ERR_CAMPAIGN_SUSPENDING, 37);
VALUE(SA_AIS_ERR_ACCESS_DENIED, 38);
VALUE(SA_AIS_ERR_NOT_READY, 39);
VALUE(SA_AIS_ERR_DEPLOYMENT, 40);
