/*
 * Track callbacks and the arrival callback (through dispatch, no data), and immediate consumption
 * (at once, with data).
 */
#include <pthread.h>

#include <cpsv_papi.h>

#include "check.h"

static int arrivals, consumptions;
static struct told {
    SaCkptCheckpointHandleT to;
    char what[1000];
} told[8]; /* all of it, by handle */
static SaCkptCheckpointHandleT arrived_at;
static SaUint32T elements;
static char seen[200], cookie;
static pthread_t consumer;

/* "section+offset:size" of each element, and the data if it came along. */
static void note(const SaCkptIOVectorElementT *vector, SaUint32T count) {
    size_t at = 0;
    seen[0] = '\0';
    for (SaUint32T number = 0; number < count && at < sizeof seen; number++) {
        const SaCkptIOVectorElementT *one = &vector[number];
        at += (size_t)snprintf(seen + at, sizeof seen - at, "%.*s+%llu:%llu%.*s;",
                               one->sectionId.idLen, one->sectionId.id, one->dataOffset,
                               one->dataSize, one->dataBuffer != NULL ? (int)one->dataSize : 0,
                               one->dataBuffer != NULL ? (char *)one->dataBuffer : "");
    }
    elements = count;
}

static void arrived(const SaCkptCheckpointHandleT checkpoint, SaCkptIOVectorElementT *vector,
                    SaUint32T count) {
    size_t slot = 0;
    arrived_at = checkpoint;
    note(vector, count);
    for (SaUint32T number = 0; number < count; number++)
        THAT(vector[number].dataBuffer == NULL && vector[number].readSize == 0);
    while (told[slot].to != 0 && told[slot].to != checkpoint)
        slot++;
    THAT(slot < 8 && strlen(told[slot].what) + strlen(seen) < sizeof told->what);
    told[slot].to = checkpoint;
    strcat(told[slot].what, seen);
    arrivals++;
}

/* Dispatch until a handle was told of the end, and say what all it was told. */
static const char *told_until(SaCkptHandleT client, SaCkptCheckpointHandleT to, const char *end) {
    SaSelectionObjectT descriptor;
    OK(saCkptSelectionObjectGet(client, &descriptor));
    for (;;) {
        for (size_t slot = 0; slot < 8; slot++)
            if (told[slot].to == to && strstr(told[slot].what, end) != NULL)
                return told[slot].what;
        if (!readable(descriptor, 30000))
            return "not told in time";
        OK(saCkptDispatch(client, SA_DISPATCH_ALL));
    }
}

static SaUint32T consumed(SaUint64T checkpoint, SaNameT *name, SaCkptIOVectorElementT *vector,
                          SaUint32T count, void *given) {
    THAT(given == &cookie);
    THAT(name->length == 9 && memcmp(name->value, "c-consume", 9) == 0);
    arrived_at = checkpoint;
    consumer = pthread_self();
    note(vector, count);
    if (vector[0].dataBuffer != NULL)
        memset(vector[0].dataBuffer, '#', vector[0].dataSize); /* it is the callback's */
    __atomic_add_fetch(&consumptions, 1, __ATOMIC_RELEASE);
    return 1234; /* ignored */
}

static int consumed_in_the_end(int count) {
    for (int tries = 0; tries < 3000; tries++) {
        if (__atomic_load_n(&consumptions, __ATOMIC_ACQUIRE) >= count)
            return 1;
        usleep(10000);
    }
    return 0;
}

static void check_arrival(SaCkptHandleT writer, SaCkptHandleT standby) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT before =
        opened(standby, "c-arrival", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT at = opened(writer, "c-arrival", NULL, READ | WRITE);
    OK(create(at, "1", "one"));
    OK(create(at, "2", "two"));
    IS(SA_AIS_ERR_INVALID_PARAM, ncsCkptRegisterCkptArrivalCallback(standby, NULL));
    IS(SA_AIS_ERR_INVALID_PARAM, ncsCkptRegisterCkptArrivalCallback(NOWHERE, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, ncsCkptRegisterCkptArrivalCallback(NOWHERE, arrived));
    OK(ncsCkptRegisterCkptArrivalCallback(standby, arrived));
    SaCkptCheckpointHandleT later = opened(standby, "c-arrival", NULL, READ);
    SaCkptCheckpointHandleT blind = opened(standby, "c-arrival", NULL, WRITE);
    OK(saCkptCheckpointClose(before));

    /* told: creations with data, deletions */
    SaCkptSectionIdT section = section_of("2"), third = section_of("3");
    OK(saCkptCheckpointClose(blind));
    OK(create(at, "3", "three"));
    OK(dispatch_until(standby, &arrivals, 1));
    THAT(arrived_at == later && elements == 1 && strcmp(seen, "3+0:5;") == 0);
    OK(saCkptSectionDelete(at, &third));
    OK(create(at, "3", NULL));
    OK(dispatch_until(standby, &arrivals, 2));
    THAT(elements == 1 && strcmp(seen, "3+0:0;") == 0);
    arrivals = 0;
    SaCkptIOVectorElementT vector[2] = {element("1", "abc", 3, 0), element("2", "defg", 4, 7)};
    OK(saCkptCheckpointWrite(at, vector, 2, NULL));
    OK(dispatch_until(standby, &arrivals, 1));
    THAT(arrived_at == later && elements == 2 && strcmp(seen, "1+0:3;2+7:4;") == 0);
    OK(saCkptSectionOverwrite(at, &section, "whole", 5));
    OK(dispatch_until(standby, &arrivals, 2));
    THAT(elements == 1 && strcmp(seen, "2+0:5;") == 0);

    /* an asynchronous open is followed as well, and nobody is told after a close */
    OK(saCkptCheckpointClose(later));
    SaNameT name = name_of("c-arrival");
    opens = 0;
    OK(saCkptCheckpointOpenAsync(standby, 1, &name, NULL, READ));
    OK(dispatch_until(standby, &opens, 1));
    OK(saCkptSectionOverwrite(at, &section, "again", 5));
    OK(dispatch_until(standby, &arrivals, 3));
    THAT(arrived_at == last_checkpoint && arrivals == 3);
    OK(saCkptCheckpointClose(last_checkpoint));
    OK(saCkptSectionOverwrite(at, &section, "nobody", 6));
    OK(saCkptCheckpointClose(at));
}

/* Left out is the handle that wrote, and no other: not those of the same client either. */
static void check_own_arrivals(SaCkptHandleT writer, SaCkptHandleT standby) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT at = opened(writer, "c-own", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT both = opened(standby, "c-own", NULL, READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(standby, "c-own", NULL, READ);
    SaCkptCheckpointHandleT blind = opened(standby, "c-own", NULL, WRITE);
    SaCkptSectionIdT one = section_of("1"), two = section_of("2"), three = section_of("3");
    OK(create(at, "1", ""));
    OK(create(at, "2", ""));

    OK(saCkptSectionOverwrite(both, &one, "a", 1));
    OK(saCkptSectionOverwrite(blind, &one, "bb", 2));
    SaCkptIOVectorElementT vector[2] = {element("1", "ccc", 3, 1), element("2", "", 0, 0)};
    OK(saCkptCheckpointWrite(both, vector, 2, NULL));
    vector[0].dataOffset = 2; /* another write */
    OK(saCkptCheckpointWrite(blind, vector, 2, NULL));
    OK(saCkptSectionOverwrite(both, &two, "", 0));

    /* what two handles wrote alike is told once each */
    OK(saCkptSectionOverwrite(both, &two, "alike", 5));
    OK(saCkptSectionOverwrite(blind, &two, "alike", 5));

    /* what failed is not waited for */
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionOverwrite(both, &three, "ghost!", 6));
    OK(create(at, "3", ""));
    OK(saCkptSectionOverwrite(blind, &three, "ghost!", 6));

    /* creations and deletions, also where the cluster chooses the id */
    OK(saCkptSectionDelete(both, &three));
    OK(create(both, "3", "mine"));
    OK(saCkptSectionDelete(blind, &three));
    SaCkptSectionIdT generated = SA_CKPT_GENERATED_SECTION_ID;
    SaCkptSectionCreationAttributesT creation = {&generated, SA_TIME_END};
    OK(saCkptSectionCreate(both, &creation, "any", 3));
    OK(saCkptSectionDelete(both, &generated));
    OK(saCkptSectionIdFree(both, generated.id));

    OK(saCkptSectionOverwrite(at, &one, "the end", 7));
    THAT(strcmp(told_until(standby, both, "+0:7;"),
                "1+0:2;1+2:3;2+0:0;2+0:5;3+0:6;3+0:0;1+0:7;") == 0);
    static const char most[] =
        "1+0:1;1+0:2;1+1:3;2+0:0;1+2:3;2+0:0;2+0:0;2+0:5;2+0:5;3+0:6;3+0:0;3+0:4;3+0:0;";
    const char *all = told_until(standby, reader, "+0:7;");
    THAT(strncmp(all, most, sizeof most - 1) == 0);
    THAT(strstr(all, "+0:3;") != NULL); /* what the cluster named */
    OK(saCkptCheckpointClose(both));
    OK(saCkptCheckpointClose(reader));
    OK(saCkptCheckpointClose(blind));
    OK(saCkptCheckpointClose(at));
}

static void check_consumption(SaCkptHandleT writer, SaCkptHandleT standby) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT at =
        opened(writer, "c-consume", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT to = opened(standby, "c-consume", NULL, READ);
    SaCkptCheckpointHandleT blind = opened(standby, "c-consume", NULL, WRITE);
    SaCkptSectionIdT section = section_of("1");
    OK(create(at, "1", ""));
    IS(SA_AIS_ERR_BAD_HANDLE, clCkptImmediateConsumptionRegister(NOWHERE, consumed, NULL));
    IS(SA_AIS_ERR_ACCESS, clCkptImmediateConsumptionRegister(blind, consumed, NULL));
    IS(0, clCkptImmediateConsumptionRegister(to, NULL, NULL)); /* there is none */
    IS(0, clCkptImmediateConsumptionRegister(to, consumed, &cookie));
    OK(saCkptSectionOverwrite(at, &section, "hot", 3));
    THAT(consumed_in_the_end(1));
    THAT(arrived_at == to && elements == 1 && strcmp(seen, "1+0:3hot;") == 0);
    THAT(!pthread_equal(consumer, pthread_self()));
    SaCkptIOVectorElementT vector[2] = {element("1", "ter", 3, 3), element("1", "!", 1, 6)};
    OK(saCkptCheckpointWrite(at, vector, 2, NULL));
    THAT(consumed_in_the_end(2));
    THAT(elements == 2 && strcmp(seen, "1+3:3ter;1+6:1!;") == 0);
    OK(saCkptSectionDelete(at, &section));
    THAT(consumed_in_the_end(3));
    THAT(strcmp(seen, "1+0:0;") == 0);

    /* an own change, none after deregistration; the next registered callback is told in order */
    IS(0, clCkptImmediateConsumptionRegister(to, NULL, NULL));
    OK(create(at, "2", ""));
    IS(0, clCkptImmediateConsumptionRegister(to, consumed, &cookie));
    section = section_of("2");
    OK(saCkptSectionOverwrite(blind, &section, "own", 3));
    for (int number = 0; number < 20; number++) {
        char text[20];
        OK(saCkptSectionOverwrite(at, &section, text, (SaSizeT)sprintf(text, "%d", number)));
    }
    THAT(consumed_in_the_end(23));
    THAT(strcmp(seen, "2+0:219;") == 0);
    OK(saCkptCheckpointClose(to));
    IS(SA_AIS_ERR_BAD_HANDLE, clCkptImmediateConsumptionRegister(to, NULL, NULL));
    OK(saCkptSectionOverwrite(at, &section, "nobody", 6));
    THAT(consumptions == 23);
}

static void check_track_versions(void) {
    static const struct {
        SaVersionT asked;
        SaAisErrorT answer;
    } table[] = {
        {{'B', 2, 3}, SA_AIS_OK},          {{'B', 2, 99}, SA_AIS_OK},
        {{'B', 2, 2}, SA_AIS_ERR_VERSION}, {{'B', 1, 3}, SA_AIS_ERR_VERSION},
        {{'B', 3, 3}, SA_AIS_ERR_VERSION}, {{'A', 2, 3}, SA_AIS_ERR_VERSION},
        {{'C', 2, 3}, SA_AIS_ERR_VERSION},
    };
    SaCkptCallbacksT_2 callbacks = {NULL, NULL, arrived};
    SaCkptHandleT client;
    SaVersionT version = {'B', 2, 3};
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptInitialize_2(NULL, &callbacks, &version));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptInitialize_2(&client, &callbacks, NULL));
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        version = table[row].asked;
        client = NOWHERE;
        IS(table[row].answer, saCkptInitialize_2(&client, &callbacks, &version));
        THAT(version.releaseCode == 'B' && version.majorVersion == 2 && version.minorVersion == 3);
        if (table[row].answer == SA_AIS_OK)
            OK(saCkptFinalize(client));
        else
            THAT(client == 0);
    }
}

static void check_track_refusals(SaCkptHandleT writer) {
    SaCkptHandleT old = client_of(1, 1), silent, without = client_of(2, 3);
    SaVersionT version = {'B', 2, 3};
    OK(saCkptInitialize_2(&silent, NULL, &version));
    for (int stop = 0; stop < 2; stop++) {
        SaAisErrorT (*call)(SaCkptHandleT) = stop ? saCkptTrackStop : saCkptTrack;
        IS(SA_AIS_ERR_BAD_HANDLE, call(NOWHERE));
        IS(SA_AIS_ERR_BAD_HANDLE, call(0));
        IS(SA_AIS_ERR_VERSION, call(old));
        IS(SA_AIS_ERR_VERSION, call(writer));
        IS(SA_AIS_ERR_INIT, call(silent));
        IS(SA_AIS_ERR_INIT, call(without));
    }
    IS(SA_AIS_ERR_NOT_SUPPORTED, saCkptCheckpointTrack(NOWHERE));
    IS(SA_AIS_ERR_NOT_SUPPORTED, saCkptCheckpointTrackStop(0));
    OK(saCkptFinalize(old));
    OK(saCkptFinalize(silent));
    OK(saCkptFinalize(without));
}

static void check_track(SaCkptHandleT writer) {
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ACTIVE_REPLICA);
    SaCkptCallbacksT_2 callbacks = {NULL, NULL, arrived};
    SaVersionT version = {'B', 2, 3};
    SaCkptHandleT standby;
    OK(saCkptInitialize_2(&standby, &callbacks, &version));
    SaCkptCheckpointHandleT at = opened(writer, "c-track", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT before = opened(standby, "c-track", NULL, READ);
    OK(create(at, "0", "too early"));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptTrackStop(standby));
    OK(saCkptTrack(standby));
    OK(saCkptTrack(standby));
    IS(SA_AIS_ERR_NOT_SUPPORTED, saCkptCheckpointTrack(before));
    IS(SA_AIS_ERR_NOT_SUPPORTED, saCkptCheckpointTrackStop(before));
    SaCkptCheckpointHandleT after = opened(standby, "c-track", NULL, READ | WRITE);
    SaCkptSectionIdT one = section_of("1");
    OK(create(at, "1", "one"));
    SaCkptIOVectorElementT vector[2] = {element("0", "abc", 3, 9), element("1", "defg", 4, 7)};
    OK(saCkptCheckpointWrite(at, vector, 2, NULL));
    OK(saCkptSectionOverwrite(after, &one, "by the standby", 14));
    OK(saCkptSectionDelete(at, &one));
    OK(create(at, "2", "the end"));
    THAT(strcmp(told_until(standby, before, "+0:7;"),
                "1+0:3;0+9:3;1+7:4;1+0:14;1+0:0;2+0:7;") == 0);
    THAT(strcmp(told_until(standby, after, "+0:7;"), "1+0:3;0+9:3;1+7:4;1+0:0;2+0:7;") == 0);

    /* what was not told before the stop is not told after it */
    SaSelectionObjectT descriptor;
    OK(saCkptSelectionObjectGet(standby, &descriptor));
    OK(create(at, "3", "x"));
    THAT(readable(descriptor, 30000));
    OK(saCkptTrackStop(standby));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptTrackStop(standby));
    int so_far = arrivals;
    OK(saCkptDispatch(standby, SA_DISPATCH_ALL));
    THAT(arrivals == so_far);
    OK(saCkptTrack(standby));
    SaCkptSectionIdT two = section_of("2");
    OK(saCkptSectionDelete(at, &two));
    OK(dispatch_until(standby, &arrivals, so_far + 2));
    THAT(arrivals == so_far + 2 && strcmp(seen, "2+0:0;") == 0);
    OK(saCkptCheckpointClose(at));
    OK(saCkptFinalize(standby));
    memset(told, 0, sizeof told);
}

void check_tracking(void) {
    SaCkptHandleT writer = client_of(2, 2), standby = client_of(2, 2);
    check_track_versions();
    check_track_refusals(writer);
    check_track(writer);
    arrivals = 0;
    check_arrival(writer, standby);
    check_own_arrivals(writer, standby);
    check_consumption(writer, standby);
    OK(saCkptFinalize(standby));
    OK(saCkptFinalize(writer));
}
