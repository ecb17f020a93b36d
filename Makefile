# Names for scripts, which do not need make: what each does is said at its top.
.PHONY: quick check full long mutants

quick: ; .ci/quick
check: ; .ci/run
full: ; .ci/full
long: ; .ci/long
mutants: ; .ci/mutants
