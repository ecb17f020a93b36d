/* Names longer than SaNameT: saAisNameLend() and saAisNameBorrow(), with the opaque SaNameT. */
#define SA_EXTENDED_NAME_SOURCE
#include <saAis.h>

#include "check.h"

static SaAisErrorT try_name(SaCkptHandleT client, const SaNameT *name) {
    SaCkptCheckpointHandleT checkpoint;
    return saCkptCheckpointOpen(client, name, NULL, READ, WAIT, &checkpoint);
}

void check_names(void) {
    static char text[4096];
    SaNameT name;
    SaCkptHandleT client = client_of(2, 2);

    saAisNameLend("short", &name);
    THAT(strcmp(saAisNameBorrow(&name), "short") == 0);
    THAT(name._opaque[0] == 5);
    saAisNameLend("", &name);
    THAT(strcmp(saAisNameBorrow(&name), "") == 0);
    saAisNameLend(NULL, &name);
    THAT(strcmp(saAisNameBorrow(&name), "") == 0);
    IS(SA_AIS_ERR_INVALID_PARAM, try_name(client, &name)); /* an empty name */

    memset(text, 'a', 255);
    saAisNameLend(text, &name);
    THAT(saAisNameBorrow(&name) != text); /* copied: fits */
    THAT(strcmp(saAisNameBorrow(&name), text) == 0);
    IS(SA_AIS_ERR_NOT_EXIST, try_name(client, &name));

    memset(text, 'b', 256);
    saAisNameLend(text, &name);
    THAT(saAisNameBorrow(&name) == text); /* lent: does not fit */
    unsetenv("SA_ENABLE_EXTENDED_NAMES");
    IS(SA_AIS_ERR_INVALID_PARAM, try_name(client, &name));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointUnlink(client, &name));
    setenv("SA_ENABLE_EXTENDED_NAMES", "1", 1);
    IS(SA_AIS_ERR_NOT_EXIST, try_name(client, &name));

    memset(text, 'c', 2048);
    saAisNameLend(text, &name);
    IS(SA_AIS_ERR_NOT_EXIST, try_name(client, &name));
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint, again;
    OK(saCkptCheckpointOpen(client, &name, &attributes, CREATE | WRITE, WAIT, &checkpoint));
    OK(saCkptCheckpointOpen(client, &name, NULL, READ, WAIT, &again));
    text[2047] = 'd'; /* the whole name counts */
    IS(SA_AIS_ERR_NOT_EXIST, try_name(client, &name));
    text[2047] = 'c';
    OK(saCkptCheckpointUnlink(client, &name));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointUnlink(client, &name));

    memset(text, 'e', 2049);
    saAisNameLend(text, &name);
    IS(SA_AIS_ERR_TOO_BIG, try_name(client, &name));
    IS(SA_AIS_ERR_TOO_BIG, saCkptCheckpointUnlink(client, &name));
    IS(SA_AIS_ERR_TOO_BIG, try_name(NOWHERE, &name));
    unsetenv("SA_ENABLE_EXTENDED_NAMES");

    /* a length no SaNameT can have */
    name._opaque[0] = 257;
    THAT(saAisNameBorrow(&name) == NULL);
    IS(SA_AIS_ERR_INVALID_PARAM, try_name(client, &name));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointOpenAsync(client, 1, &name, NULL, READ));
    /* 256 bytes without a NUL are a name, but no string */
    memset(&name, 'f', sizeof name);
    name._opaque[0] = 256;
    THAT(saAisNameBorrow(&name) == NULL);
    IS(SA_AIS_ERR_NOT_EXIST, try_name(client, &name));
    OK(saCkptFinalize(client));
}
