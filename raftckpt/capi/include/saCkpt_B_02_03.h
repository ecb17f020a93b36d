/*
 * saCkpt_B_02_03.h - what version B.02.03 of the SA Forum Checkpoint Service adds to B.02.02, as
 * OpenSAF has it and raftckpt serves it: a client is told where its checkpoints are written. Names,
 * field order and signatures are OpenSAF's; the text is raftckpt's own.
 */
#ifndef _SA_CKPT_B_02_03_H
#define _SA_CKPT_B_02_03_H

#include "saCkpt.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Somebody wrote or overwrote sections of a checkpoint, created one with data, or deleted one. The
 * vector says which, where and how much (dataSize at dataOffset; 0 for a deletion); dataBuffer is
 * NULL, read what you need. Called from saCkptDispatch(), for every checkpoint that was or will be
 * opened for reading with the ckptHandle that tracks, but not for the checkpoint handle that did
 * it. Memory of the vector is the library's and gone when the callback returns.
 */
typedef void (*SaCkptCheckpointTrackCallbackT)(SaCkptCheckpointHandleT checkpointHandle,
                                               SaCkptIOVectorElementT *ioVector,
                                               SaUint32T numberOfElements);

typedef struct {
    SaCkptCheckpointOpenCallbackT saCkptCheckpointOpenCallback;
    SaCkptCheckpointSynchronizeCallbackT saCkptCheckpointSynchronizeCallback;
    SaCkptCheckpointTrackCallbackT saCkptCheckpointTrackCallback;
} SaCkptCallbacksT_2;

/* As saCkptInitialize(); the version asked for is B.02.03 or later, else SA_AIS_ERR_VERSION. */
extern SaAisErrorT saCkptInitialize_2(SaCkptHandleT *ckptHandle,
                                      const SaCkptCallbacksT_2 *callbacks, SaVersionT *version);

/*
 * Begin and stop to tell. SA_AIS_ERR_VERSION to clients that asked for less than B.02.03,
 * SA_AIS_ERR_INIT without a track callback, SA_AIS_ERR_NOT_EXIST to who stops what never began.
 */
extern SaAisErrorT saCkptTrack(SaCkptHandleT ckptHandle);
extern SaAisErrorT saCkptTrackStop(SaCkptHandleT ckptHandle);

/* The same for one checkpoint: SA_AIS_ERR_NOT_SUPPORTED, always. */
extern SaAisErrorT saCkptCheckpointTrack(SaCkptCheckpointHandleT checkpointHandle);
extern SaAisErrorT saCkptCheckpointTrackStop(SaCkptCheckpointHandleT checkpointHandle);

#ifdef __cplusplus
}
#endif

#endif
