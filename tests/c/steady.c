/*
 * Writes without a pause while somebody kills replicas, and says what it sees: a write is OK, or
 * it is TIMEOUT or TRY_AGAIN; nothing else, and never the end of the process. SIGPIPE has its
 * deadly default. In the end every number said to be written, and no older one, must be there.
 *
 *     RAFTCKPT_ENDPOINTS=... ./steady          stops at the end of standard input
 *
 * Prints a line for each write; exits with 1 if anything was wrong.
 */
#include <signal.h>

#include "check.h"

int checks, failures;

int main(void) {
    signal(SIGPIPE, SIG_DFL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    SaVersionT version = {'B', 2, 2};
    SaCkptHandleT client = 0;
    SaCkptCheckpointHandleT checkpoint = 0;
    SaNameT name = {8, "c-steady"};
    SaCkptCheckpointCreationAttributesT attributes = {SA_CKPT_WR_ALL_REPLICAS, 8, 0, 1, 400000, 0};
    SaCkptSectionIdT section = SA_CKPT_DEFAULT_SECTION_ID;
    OK(saCkptInitialize(&client, NULL, &version));
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | READ | WRITE, WAIT, &checkpoint));

    /* large enough that a kill hits it on its way */
    static unsigned numbers[100000];
    unsigned written = 0, tried = 0;
    struct pollfd input = {STDIN_FILENO, POLLIN | POLLHUP, 0};
    while (failures == 0 && poll(&input, 1, 0) == 0) {
        tried++;
        for (size_t at = 0; at < sizeof numbers / sizeof *numbers; at++)
            numbers[at] = tried;
        SaAisErrorT rc = saCkptSectionOverwrite(checkpoint, &section, numbers, sizeof numbers);
        if (rc == SA_AIS_OK)
            written = tried;
        else if (rc != SA_AIS_ERR_TRY_AGAIN)
            IS(SA_AIS_ERR_TIMEOUT, rc);
        printf("%u %d\n", tried, (int)rc);
        if (rc != SA_AIS_OK)
            continue;
        unsigned found[2] = {0, 0};
        SaCkptIOVectorElementT read = {SA_CKPT_DEFAULT_SECTION_ID, found, sizeof found,
                                       sizeof numbers - sizeof found, 0};
        rc = saCkptCheckpointRead(checkpoint, &read, 1, NULL);
        if (rc == SA_AIS_OK)
            THAT(found[0] == written && found[1] == written);
        else
            THAT(rc == SA_AIS_ERR_TIMEOUT || rc == SA_AIS_ERR_TRY_AGAIN);
    }
    sigset_t pending;
    sigpending(&pending);
    THAT(!sigismember(&pending, SIGPIPE));
    OK(saCkptFinalize(client));
    printf("written %u of %u, failures %d\n", written, tried, failures);
    return failures == 0 ? 0 : 1;
}
