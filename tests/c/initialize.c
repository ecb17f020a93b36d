/* Initializes once and says what came of it. */
#include <stdio.h>

#include <saCkpt.h>

int main(void) {
    SaVersionT version = {'B', 2, 2};
    SaCkptHandleT client = 77;
    SaAisErrorT rc = saCkptInitialize(&client, NULL, &version);
    printf("%d %d\n", (int)rc, client != 0);
    return 0;
}
