/* Loads the library as a plug-in host does, with its symbols hidden, and calls it. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) {
        puts(dlerror());
        return 1;
    }
    int (*finalize)(unsigned long long) =
        (int (*)(unsigned long long))dlsym(library, "saCkptFinalize");
    int rc = finalize(1);
    printf("%d\n", rc);
    dlclose(library); /* must do no harm: threads run in it */
    return rc == 9 ? 0 : 1;
}
