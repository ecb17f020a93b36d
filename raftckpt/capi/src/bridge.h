/*
 * What the C half of the library (libsackpt.c) and its Python half (binding.py) say to each
 * other. cffi and build.py read this file too: declarations only. The py_ functions exist once
 * Python runs; pointers named out_ are never NULL.
 */

/*
 * One turn of saCkptDispatch(): the one callback that the C half is to make, if any, and how to go
 * on. The same structure goes through all turns of a dispatch.
 */
typedef struct {
    SaUint32T left;  /* how many turns may follow; 0 before the first and after the last */
    SaUint32T waits; /* nothing was pending: the next turn is to wait for something */
    SaCkptCheckpointOpenCallbackT opened;
    SaCkptCheckpointSynchronizeCallbackT synchronized;
    SaCkptCheckpointTrackCallbackT tracked;
    SaInvocationT invocation;
    SaCkptCheckpointHandleT checkpoint;
    SaAisErrorT error;
    SaCkptIOVectorElementT *vector; /* from malloc(), with all it points to; the C half frees it */
    SaUint32T count;
} TurnT;

SaAisErrorT py_initialize(SaCkptHandleT *out_handle, const SaCkptCallbacksT_2 *callbacks,
                          SaVersionT *version, SaUint32T second);
SaAisErrorT py_selection_object_get(SaCkptHandleT handle, SaSelectionObjectT *out_descriptor);
SaAisErrorT py_dispatch(SaCkptHandleT handle, SaUint32T flags, TurnT *out_turn);
SaAisErrorT py_finalize(SaCkptHandleT handle);
SaAisErrorT py_open(SaCkptHandleT handle, const char *name, SaSizeT name_length,
                    const SaCkptCheckpointCreationAttributesT *attributes, SaUint32T flags,
                    SaTimeT timeout, SaCkptCheckpointHandleT *out_checkpoint);
SaAisErrorT py_open_async(SaCkptHandleT handle, SaInvocationT invocation, const char *name,
                          SaSizeT name_length,
                          const SaCkptCheckpointCreationAttributesT *attributes, SaUint32T flags);
SaAisErrorT py_close(SaCkptCheckpointHandleT checkpoint);
SaAisErrorT py_unlink(SaCkptHandleT handle, const char *name, SaSizeT name_length);
SaAisErrorT py_retention_duration_set(SaCkptCheckpointHandleT checkpoint, SaTimeT duration);
SaAisErrorT py_active_replica_set(SaCkptCheckpointHandleT checkpoint);
SaAisErrorT py_status_get(SaCkptCheckpointHandleT checkpoint,
                          SaCkptCheckpointDescriptorT *out_status);
SaAisErrorT py_section_create(SaCkptCheckpointHandleT checkpoint,
                              SaCkptSectionCreationAttributesT *attributes, const void *data,
                              SaSizeT size);
SaAisErrorT py_section_delete(SaCkptCheckpointHandleT checkpoint, const SaCkptSectionIdT *section);
SaAisErrorT py_section_id_free(SaCkptCheckpointHandleT checkpoint, SaUint8T *id);
SaAisErrorT py_expiration_time_set(SaCkptCheckpointHandleT checkpoint,
                                   const SaCkptSectionIdT *section, SaTimeT expiration);
SaAisErrorT py_iteration_initialize(SaCkptCheckpointHandleT checkpoint, SaUint32T chosen,
                                    SaTimeT expiration,
                                    SaCkptSectionIterationHandleT *out_iteration);
SaAisErrorT py_iteration_next(SaCkptSectionIterationHandleT iteration,
                              SaCkptSectionDescriptorT *out_descriptor);
SaAisErrorT py_iteration_finalize(SaCkptSectionIterationHandleT iteration);
SaAisErrorT py_write(SaCkptCheckpointHandleT checkpoint, const SaCkptIOVectorElementT *vector,
                     SaUint32T count, SaUint32T *erroneous);
SaAisErrorT py_overwrite(SaCkptCheckpointHandleT checkpoint, const SaCkptSectionIdT *section,
                         const void *data, SaSizeT size);
SaAisErrorT py_read(SaCkptCheckpointHandleT checkpoint, SaCkptIOVectorElementT *vector,
                    SaUint32T count, SaUint32T *erroneous);
SaAisErrorT py_data_free(SaCkptCheckpointHandleT checkpoint, void *data);
SaAisErrorT py_synchronize(SaCkptCheckpointHandleT checkpoint, SaTimeT timeout);
SaAisErrorT py_synchronize_async(SaCkptCheckpointHandleT checkpoint, SaInvocationT invocation);
SaAisErrorT py_track(SaCkptHandleT handle);
SaAisErrorT py_track_stop(SaCkptHandleT handle);
SaAisErrorT py_arrival_register(SaCkptHandleT handle, SaCkptCheckpointTrackCallbackT callback);
SaAisErrorT py_consumption_register(SaCkptCheckpointHandleT checkpoint,
                                    ClCkptNotificationCallbackT callback, void *cookie);
SaAisErrorT py_section_check(SaCkptCheckpointHandleT checkpoint, const SaCkptSectionIdT *section);
