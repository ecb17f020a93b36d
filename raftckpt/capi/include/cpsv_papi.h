/* The header in which programs for OpenSAF look for the arrival callback. */
#ifndef CPSV_PAPI_H
#define CPSV_PAPI_H

#include "saCkptTracking.h"

#endif
