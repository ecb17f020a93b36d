/*
 * What the programs of this directory share: a check that counts and goes on, so that one run
 * shows every deviation, and short ways to what every check needs.
 */
#ifndef CHECK_H
#define CHECK_H

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <saCkpt.h>

extern int checks, failures;

/* The call must answer with the code. */
#define IS(code, call)                                                                        \
    do {                                                                                      \
        int found_ = (int)(call);                                                             \
        checks++;                                                                             \
        if (found_ != (int)(code)) {                                                          \
            failures++;                                                                       \
            printf("%s:%d: %s is %d, not %s (%d)\n", __FILE__, __LINE__, #call, found_, #code, \
                   (int)(code));                                                              \
        }                                                                                     \
    } while (0)

#define OK(call) IS(SA_AIS_OK, call)

#define THAT(condition)                                                        \
    do {                                                                       \
        checks++;                                                              \
        if (!(condition)) {                                                    \
            failures++;                                                        \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);     \
        }                                                                      \
    } while (0)

#define CREATE SA_CKPT_CHECKPOINT_CREATE
#define READ SA_CKPT_CHECKPOINT_READ
#define WRITE SA_CKPT_CHECKPOINT_WRITE
#define SECOND SA_TIME_ONE_SECOND
#define WAIT (30 * SECOND)
#define NOWHERE 0xdeadbeefULL /* a handle nobody got */

SaNameT name_of(const char *text);
SaCkptSectionIdT section_of(const char *text);
SaCkptCheckpointCreationAttributesT attributes_of(SaUint32T flags);
SaCkptHandleT client_of(SaUint8T major, SaUint8T minor);
SaCkptCheckpointHandleT opened(SaCkptHandleT client, const char *name,
                               const SaCkptCheckpointCreationAttributesT *attributes,
                               SaUint32T flags);
SaAisErrorT create(SaCkptCheckpointHandleT checkpoint, const char *section, const char *data);
SaCkptIOVectorElementT element(const char *section, void *data, SaSizeT size, SaOffsetT offset);
SaTimeT in_seconds(double seconds);
int readable(SaSelectionObjectT descriptor, int milliseconds);

/* What the callbacks were told last, and how often. */
extern int opens, synchronizations;
extern SaInvocationT last_invocation;
extern SaCkptCheckpointHandleT last_checkpoint;
extern SaAisErrorT last_error;
SaAisErrorT dispatch_until(SaCkptHandleT client, int *counter, int count);

void check_names(void);
void check_lifecycle(void);
void check_dispatch(void);
void check_open(void);
void check_checkpoints(void);
void check_sections(void);
void check_iteration(void);
void check_data(void);
void check_synchronize(void);
void check_fork(void);
void check_null_pointers(void);
void check_tracking(void);
void check_stacks(void);
void check_cancellation(void);
void check_fork_from_a_small_stack(void);

#endif
