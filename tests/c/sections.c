/* Create, delete, expiration, ids, iteration. */
#include "check.h"

static SaAisErrorT create_id(SaCkptCheckpointHandleT checkpoint, SaUint16T length, void *id,
                             SaTimeT expiration, const void *data, SaSizeT size) {
    SaCkptSectionIdT section = {length, id};
    SaCkptSectionCreationAttributesT attributes = {&section, expiration};
    return saCkptSectionCreate(checkpoint, &attributes, data, size);
}

static void check_generated_ids(SaCkptCheckpointHandleT checkpoint) {
    SaCkptSectionIdT ids[2];
    for (int which = 0; which < 2; which++) {
        SaCkptSectionIdT generated = SA_CKPT_GENERATED_SECTION_ID;
        SaCkptSectionCreationAttributesT attributes = {&generated, SA_TIME_END};
        OK(saCkptSectionCreate(checkpoint, &attributes, "generated", 9));
        THAT(attributes.sectionId == &generated);
        THAT(generated.id != NULL && generated.idLen >= 1 && generated.idLen <= 10);
        ids[which] = generated;
    }
    THAT(ids[0].idLen != ids[1].idLen || memcmp(ids[0].id, ids[1].id, ids[0].idLen) != 0);
    OK(saCkptSectionDelete(checkpoint, &ids[0]));
    OK(saCkptSectionDelete(checkpoint, &ids[1]));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIdFree(NOWHERE, ids[0].id));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionIdFree(checkpoint, NULL));
    OK(saCkptSectionIdFree(checkpoint, ids[0].id));
    free(ids[1].id); /* as programs of B.01 do */
}

static void check_default_section(SaCkptHandleT client) {
    SaCkptCheckpointCreationAttributesT one = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    one.maxSections = 1;
    one.checkpointSize = 100;
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-default", &one, CREATE | READ | WRITE);
    SaCkptSectionIdT section = SA_CKPT_DEFAULT_SECTION_ID;
    IS(SA_AIS_ERR_EXIST, create(checkpoint, "1", "data"));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(checkpoint, &section));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptSectionExpirationTimeSet(checkpoint, &section, in_seconds(60)));
    OK(saCkptSectionOverwrite(checkpoint, &section, "default", 7));
    char buffer[20] = "";
    SaCkptIOVectorElementT vector = {SA_CKPT_DEFAULT_SECTION_ID, buffer, sizeof buffer, 0, 0};
    OK(saCkptCheckpointRead(checkpoint, &vector, 1, NULL));
    THAT(vector.readSize == 7 && memcmp(buffer, "default", 7) == 0);
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    OK(saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    OK(saCkptSectionIterationNext(iteration, &descriptor));
    THAT(descriptor.sectionId.idLen == 0 && descriptor.sectionId.id == NULL);
    THAT(descriptor.sectionSize == 7 && descriptor.expirationTime == SA_TIME_END);
    IS(SA_AIS_ERR_NO_SECTIONS, saCkptSectionIterationNext(iteration, &descriptor));
    OK(saCkptSectionIterationFinalize(iteration));
    OK(saCkptCheckpointClose(checkpoint));
}

/* Ids that no section can have: refused by every call that takes one, where its turn comes. */
static void check_impossible_ids(void) {
    static SaUint8T longest[0xffff];
    static const SaCkptSectionIdT ids[] = {
        {5, NULL}, {0xffff, NULL}, {0, longest}, {1025, longest}, {2000, longest},
        {0xffff, longest},
    };
    SaCkptHandleT client = client_of(1, 1); /* for B.02 49 bytes would be the limit */
    SaCkptCheckpointCreationAttributesT roomy = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    roomy.maxSectionIdSize = 1024;
    SaCkptCheckpointHandleT both = opened(client, "c-ids", &roomy, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-ids", NULL, READ);
    memset(longest, 'i', sizeof longest);
    for (size_t which = 0; which < sizeof ids / sizeof *ids; which++) {
        SaCkptSectionIdT id = ids[which];
        char data[4] = "data";
        SaUint32T wrong = 77;
        SaCkptIOVectorElementT vector[2] = {element("1", data, 4, 0), {id, data, 4, 0, 0}};
        IS(SA_AIS_ERR_INVALID_PARAM, create_id(both, id.idLen, id.id, SA_TIME_END, data, 4));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(both, &id, data, 4));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(both, &id));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionExpirationTimeSet(both, &id, SA_TIME_END));
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(both, vector, 2, &wrong));
        THAT(wrong == 1);
        wrong = 77;
        IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(both, vector, 2, &wrong));
        THAT(wrong == 1);
        IS(SA_AIS_ERR_ACCESS, create_id(reader, id.idLen, id.id, SA_TIME_END, data, 4));
        IS(SA_AIS_ERR_ACCESS, saCkptSectionOverwrite(reader, &id, data, 4));
        IS(SA_AIS_ERR_ACCESS, saCkptSectionDelete(reader, &id));
        IS(SA_AIS_ERR_ACCESS, saCkptSectionExpirationTimeSet(reader, &id, SA_TIME_END));
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionOverwrite(NOWHERE, &id, data, 4));
        IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionDelete(NOWHERE, &id));
    }
    /* one that is possible, as long as ids may be */
    SaCkptSectionIdT longest_possible = {1024, longest};
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionOverwrite(both, &longest_possible, "data", 4));
    OK(create_id(both, 1024, longest, SA_TIME_END, "data", 4));
    OK(saCkptSectionOverwrite(both, &longest_possible, "more", 4));
    OK(saCkptSectionDelete(both, &longest_possible));
    OK(saCkptFinalize(client));
}

void check_sections(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-sections", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-sections", NULL, READ);
    SaCkptSectionIdT empty = {0, NULL}, missing = section_of("missing");
    char data[200] = "0123456789";

    check_impossible_ids();
    check_generated_ids(checkpoint);
    check_default_section(client);

    /* create */
    SaCkptSectionCreationAttributesT no_id = {NULL, SA_TIME_END};
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionCreate(checkpoint, NULL, data, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionCreate(checkpoint, &no_id, data, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, create_id(checkpoint, 1, "1", SA_TIME_END, NULL, 1));
    IS(SA_AIS_ERR_NO_RESOURCES,
       create_id(checkpoint, 1, "1", SA_TIME_END, data, (64 << 20) + 1));
    IS(SA_AIS_ERR_NO_RESOURCES,
       create_id(checkpoint, 1, "1", SA_TIME_END, data, 0xffffffffffffffffULL));
    IS(SA_AIS_ERR_BAD_HANDLE, create(NOWHERE, "1", "data"));
    IS(SA_AIS_ERR_ACCESS, create(reader, "1", "data"));
    IS(SA_AIS_ERR_ACCESS, create_id(reader, 1, NULL, SA_TIME_END, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, create_id(checkpoint, 1, NULL, SA_TIME_END, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, create_id(checkpoint, 0, "1", SA_TIME_END, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, create(checkpoint, "12345678901", "data"));
    IS(SA_AIS_ERR_INVALID_PARAM, create_id(checkpoint, 1, "1", -1, NULL, 0));
    IS(SA_AIS_ERR_INVALID_PARAM, create_id(checkpoint, 1, "1", SA_TIME_END, data, 101));
    OK(create(checkpoint, "1234567890", "ten bytes are the limit"));
    IS(SA_AIS_ERR_EXIST, create(checkpoint, "1234567890", "data"));
    OK(create_id(checkpoint, 3, "a\0b", SA_TIME_END, NULL, 0));
    OK(create_id(checkpoint, 3, "a\0c", SA_TIME_END, data, 0));
    OK(create_id(checkpoint, 1, "4", SA_TIME_END, data, 100));
    IS(SA_AIS_ERR_NO_SPACE, create(checkpoint, "5", "data"));
    IS(SA_AIS_ERR_EXIST, create(checkpoint, "4", "data"));

    /* delete */
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(checkpoint, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(checkpoint, &empty));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionDelete(NOWHERE, &empty));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionDelete(NOWHERE, &missing));
    IS(SA_AIS_ERR_ACCESS, saCkptSectionDelete(reader, &missing));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionDelete(checkpoint, &missing));
    SaCkptSectionIdT four = section_of("4");
    OK(saCkptSectionDelete(checkpoint, &four));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionDelete(checkpoint, &four));
    OK(create(checkpoint, "4", "again"));

    /* expiration */
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionExpirationTimeSet(checkpoint, NULL, SA_TIME_END));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionExpirationTimeSet(checkpoint, &four, -1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionExpirationTimeSet(NOWHERE, &four, -1));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionExpirationTimeSet(NOWHERE, &four, SA_TIME_END));
    IS(SA_AIS_ERR_ACCESS, saCkptSectionExpirationTimeSet(reader, &four, SA_TIME_END));
    IS(SA_AIS_ERR_INVALID_PARAM,
       saCkptSectionExpirationTimeSet(checkpoint, &four, in_seconds(-60)));
    IS(SA_AIS_ERR_NOT_EXIST,
       saCkptSectionExpirationTimeSet(checkpoint, &missing, in_seconds(60)));
    OK(saCkptSectionExpirationTimeSet(checkpoint, &four, in_seconds(60)));
    OK(saCkptSectionExpirationTimeSet(checkpoint, &four, SA_TIME_END));
    OK(saCkptSectionExpirationTimeSet(checkpoint, &four, in_seconds(0.3)));
    for (int tries = 0; tries < 300; tries++) { /* expires by itself */
        if (saCkptSectionOverwrite(checkpoint, &four, "x", 1) == SA_AIS_ERR_NOT_EXIST)
            break;
        usleep(100000);
    }
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionOverwrite(checkpoint, &four, "x", 1));
    OK(saCkptFinalize(client));
}

/* How many sections an iteration yields; the bits of the last characters of their ids. */
static int iterate(SaCkptCheckpointHandleT checkpoint, SaCkptSectionsChosenT chosen, SaTimeT time,
                   unsigned *which) {
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    SaAisErrorT rc;
    int count = 0;
    *which = 0;
    OK(saCkptSectionIterationInitialize(checkpoint, chosen, time, &iteration));
    while ((rc = saCkptSectionIterationNext(iteration, &descriptor)) == SA_AIS_OK) {
        count++;
        THAT(descriptor.sectionId.idLen == 1);
        *which |= 1u << (descriptor.sectionId.id[0] - '0');
        THAT(descriptor.sectionState == SA_CKPT_SECTION_VALID);
        THAT(descriptor.sectionSize == 4);
        THAT(descriptor.lastUpdate > in_seconds(-3600) && descriptor.lastUpdate < in_seconds(60));
    }
    IS(SA_AIS_ERR_NO_SECTIONS, rc);
    IS(SA_AIS_ERR_NO_SECTIONS, saCkptSectionIterationNext(iteration, &descriptor));
    OK(saCkptSectionIterationFinalize(iteration));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationFinalize(iteration));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationNext(iteration, &descriptor));
    return count;
}

void check_iteration(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-iteration", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT writer = opened(client, "c-iteration", NULL, WRITE);
    SaCkptSectionIterationHandleT iteration;
    SaCkptSectionDescriptorT descriptor;
    unsigned which;
    SaTimeT soon = in_seconds(1000), late = in_seconds(2000);

    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionIterationInitialize(checkpoint, 0, 0, &iteration));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionIterationInitialize(checkpoint, 6, 0, &iteration));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionIterationInitialize(
                                     NOWHERE, SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME, -1,
                                     &iteration));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationInitialize(NOWHERE, SA_CKPT_SECTIONS_ANY, 0,
                                                               &iteration));
    IS(SA_AIS_ERR_ACCESS,
       saCkptSectionIterationInitialize(writer, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &which) == 0);

    OK(create_id(checkpoint, 1, "0", SA_TIME_END, "data", 4));
    OK(create_id(checkpoint, 1, "1", soon, "data", 4));
    OK(create_id(checkpoint, 1, "2", late, "data", 4));
    OK(create_id(checkpoint, 1, "3", SA_TIME_END, "data", 4));
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &which) == 4 && which == 15);
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_FOREVER, 0, &which) == 2 && which == 9);
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, soon, &which) == 1);
    THAT(which == 2);
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME, late, &which) == 3);
    THAT(which == 13);
    THAT(iterate(checkpoint, SA_CKPT_SECTIONS_CORRUPTED, 0, &which) == 0);

    /* a descriptor's id given back early is not freed twice; the rest the library frees */
    OK(saCkptSectionIterationInitialize(checkpoint, SA_CKPT_SECTIONS_ANY, 0, &iteration));
    OK(saCkptSectionIterationNext(iteration, &descriptor));
    OK(saCkptSectionIdFree(checkpoint, descriptor.sectionId.id));
    OK(saCkptSectionIterationNext(iteration, &descriptor));
    SaCkptCheckpointHandleT second = opened(client, "c-iteration", NULL, READ);
    SaCkptSectionIterationHandleT of_second;
    OK(saCkptSectionIterationInitialize(second, SA_CKPT_SECTIONS_ANY, 0, &of_second));
    OK(saCkptSectionIterationNext(of_second, &descriptor));
    OK(saCkptCheckpointClose(second));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionIterationNext(of_second, &descriptor));
    OK(saCkptSectionIterationNext(iteration, &descriptor)); /* another handle's goes on */
    OK(saCkptFinalize(client));
}
