"""The SA Forum Checkpoint Service (AIS CKPT B.02.03) under its standard names.

Calls take their input parameters in the standard's order and return the return code, followed by
the outputs if there are any; nothing is raised. Callbacks are called by ``saCkptDispatch``.
See docs/guides/saf.md.
"""

from __future__ import annotations

from raftckpt.saf import constants as _constants
from raftckpt.saf.checkpoint import (
    saCkptActiveReplicaSet,
    saCkptCheckpointClose,
    saCkptCheckpointOpen,
    saCkptCheckpointOpenAsync,
    saCkptCheckpointRetentionDurationSet,
    saCkptCheckpointStatusGet,
    saCkptCheckpointUnlink,
)
from raftckpt.saf.constants import *  # noqa: F403
from raftckpt.saf.consumption import (
    clCkptImmediateConsumptionRegister,
    immediate_consumption_register,
)
from raftckpt.saf.data import (
    saCkptCheckpointRead,
    saCkptCheckpointSynchronize,
    saCkptCheckpointSynchronizeAsync,
    saCkptCheckpointWrite,
    saCkptIOVectorElementDataFree,
    saCkptSectionOverwrite,
)
from raftckpt.saf.lifecycle import (
    saCkptDispatch,
    saCkptFinalize,
    saCkptInitialize,
    saCkptInitialize_2,
    saCkptSelectionObjectGet,
)
from raftckpt.saf.section import (
    clCkptSectionCheck,
    saCkptSectionCreate,
    saCkptSectionDelete,
    saCkptSectionExpirationTimeSet,
    saCkptSectionIdFree,
    saCkptSectionIterationFinalize,
    saCkptSectionIterationInitialize,
    saCkptSectionIterationNext,
)
from raftckpt.saf.settings import configure
from raftckpt.saf.tracking import (
    ncsCkptRegisterCkptArrivalCallback,
    saCkptCheckpointTrack,
    saCkptCheckpointTrackStop,
    saCkptTrack,
    saCkptTrackStop,
)
from raftckpt.saf.types import (
    SA_CKPT_DEFAULT_SECTION_ID,
    SA_CKPT_GENERATED_SECTION_ID,
    SaCkptCallbacksT,
    SaCkptCallbacksT_2,
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaCkptIOVectorElementT,
    SaCkptSectionCreationAttributesT,
    SaCkptSectionDescriptorT,
    SaCkptSectionIdT,
    SaNameT,
    SaVersionT,
)

__all__ = [
    "SA_CKPT_DEFAULT_SECTION_ID",
    "SA_CKPT_GENERATED_SECTION_ID",
    "SaCkptCallbacksT",
    "SaCkptCallbacksT_2",
    "SaCkptCheckpointCreationAttributesT",
    "SaCkptCheckpointDescriptorT",
    "SaCkptIOVectorElementT",
    "SaCkptSectionCreationAttributesT",
    "SaCkptSectionDescriptorT",
    "SaCkptSectionIdT",
    "SaNameT",
    "SaVersionT",
    "clCkptImmediateConsumptionRegister",
    "clCkptSectionCheck",
    "configure",
    "immediate_consumption_register",
    "ncsCkptRegisterCkptArrivalCallback",
    "saCkptActiveReplicaSet",
    "saCkptCheckpointClose",
    "saCkptCheckpointOpen",
    "saCkptCheckpointOpenAsync",
    "saCkptCheckpointRead",
    "saCkptCheckpointRetentionDurationSet",
    "saCkptCheckpointStatusGet",
    "saCkptCheckpointSynchronize",
    "saCkptCheckpointSynchronizeAsync",
    "saCkptCheckpointTrack",
    "saCkptCheckpointTrackStop",
    "saCkptCheckpointUnlink",
    "saCkptCheckpointWrite",
    "saCkptDispatch",
    "saCkptFinalize",
    "saCkptIOVectorElementDataFree",
    "saCkptInitialize",
    "saCkptInitialize_2",
    "saCkptSectionCreate",
    "saCkptSectionDelete",
    "saCkptSectionExpirationTimeSet",
    "saCkptSectionIdFree",
    "saCkptSectionIterationFinalize",
    "saCkptSectionIterationInitialize",
    "saCkptSectionIterationNext",
    "saCkptSectionOverwrite",
    "saCkptSelectionObjectGet",
    "saCkptTrack",
    "saCkptTrackStop",
]
__all__ += _constants.__all__
