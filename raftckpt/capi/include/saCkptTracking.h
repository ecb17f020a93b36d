/*
 * saCkptTracking.h - what other implementations add to the standard so that a standby learns of
 * changes: OpenSAF's arrival callback, SAFplus's immediate consumption and what goes with it.
 * Nothing of it is part of AIS CKPT.
 *
 * If a standby was cut off for so long that changes are no longer kept, it is told the whole
 * contents of each section, as if somebody had overwritten them.
 */
#ifndef _SA_CKPT_TRACKING_H
#define _SA_CKPT_TRACKING_H

#include "saCkpt_B_02_03.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Arrival callback (OpenSAF): the track callback of B.02.03 under the name it had before, for
 * clients of every version. Registering it is saCkptTrack(), and it takes the track callback's
 * place.
 */
typedef void (*ncsCkptCkptArrivalCallbackT)(const SaCkptCheckpointHandleT checkpointHandle,
                                            SaCkptIOVectorElementT *ioVector,
                                            SaUint32T numberOfElements);

/* Registering again replaces the callback. */
extern SaAisErrorT ncsCkptRegisterCkptArrivalCallback(
    SaCkptHandleT ckptHandle, ncsCkptCkptArrivalCallbackT ckptArrivalCallback);

/*
 * Immediate consumption (SAFplus): the vector carries the data as well, and a deletion has
 * dataSize 0 and dataBuffer NULL. Called on a thread of the library as soon as the change arrives,
 * one call at a time for each checkpoint handle, in the order of the changes; not told is what the
 * same saCkptInitialize() handle wrote. Its result is ignored. A call may still be running when
 * the handle is closed. The callback must not wait for a thread that closes the handle.
 */
typedef SaUint32T (*ClCkptNotificationCallbackT)(SaUint64T ckptHdl, SaNameT *pName,
                                                 SaCkptIOVectorElementT *pIOVector,
                                                 SaUint32T numSections, void *pCookie);

/*
 * Returns 0, or a SaAisErrorT. One callback per handle, which must have been opened for reading;
 * NULL: no callback any more.
 */
extern SaUint32T clCkptImmediateConsumptionRegister(SaUint64T ckptHdl,
                                                    ClCkptNotificationCallbackT callback,
                                                    void *pCookie);

/*
 * Whether a section exists (SAFplus). Returns 0, or an error of SAFplus: 0x160004 if it does not,
 * else what went wrong.
 */
extern SaUint32T clCkptSectionCheck(SaUint64T ckptHdl, SaCkptSectionIdT *pSectionId);

#ifdef __cplusplus
}
#endif

#endif
