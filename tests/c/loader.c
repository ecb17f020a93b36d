/*
 * Loads the library as a plug-in host does, with its symbols hidden, and calls it.
 *
 *     ./loader [other library ...] LIBRARY      prints what saCkptFinalize(1) answers
 */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void *library = NULL;
    for (int argument = 1; argument < argc; argument++) {
        library = dlopen(argv[argument], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            puts(dlerror());
            return 1;
        }
    }
    int (*finalize)(unsigned long long) =
        (int (*)(unsigned long long))dlsym(library, "saCkptFinalize");
    int rc = finalize(1);
    printf("%d\n", rc);
    dlclose(library); /* must do no harm: threads run in it */
    return 0;
}
