/* Write, overwrite, read, memory of reads, synchronize. */
#include "check.h"

static void check_write(SaCkptCheckpointHandleT checkpoint, SaCkptCheckpointHandleT reader) {
    char data[200], found[100];
    SaUint32T wrong = 77;
    memset(data, 'w', sizeof data);
    SaCkptIOVectorElementT vector[3];

    vector[0] = element("1", data, 4, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(checkpoint, NULL, 1, &wrong));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(checkpoint, vector, 0, &wrong));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointWrite(NOWHERE, vector, 1, &wrong));
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointWrite(reader, vector, 1, &wrong));

    /* the second element is wrong: nothing of the first is written */
    vector[1] = element("missing", data, 4, 0);
    wrong = 77;
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointWrite(checkpoint, vector, 2, NULL));
    vector[1] = element("2", data, 101, 0);
    wrong = 77;
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    vector[1] = element("2", data, 4, 97);
    wrong = 77;
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    vector[1] = element("2", data, 4, 0xfffffffffffffffeULL);
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    vector[1] = element("2", NULL, 4, 0);
    wrong = 77;
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    vector[1] = element("2", data, 0xffffffffffffffffULL, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointWrite(checkpoint, vector, 2, &wrong));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(checkpoint, vector, 0xffffffff, NULL));
    SaCkptIOVectorElementT read = element("1", found, sizeof found, 0);
    OK(saCkptCheckpointRead(reader, &read, 1, NULL));
    THAT(read.readSize == 5 && memcmp(found, "first", 5) == 0);

    /* several at once, over the end with a gap, and the index stays as it was */
    vector[0] = element("1", "F", 1, 0);
    vector[1] = element("2", "gap", 3, 10);
    vector[2] = element("1", "T", 1, 4);
    wrong = 77;
    OK(saCkptCheckpointWrite(checkpoint, vector, 3, &wrong));
    THAT(wrong == 77);
    vector[0] = element("1", found, sizeof found, 0);
    vector[1] = element("2", found + 50, 50, 0);
    OK(saCkptCheckpointRead(reader, vector, 2, NULL));
    THAT(vector[0].readSize == 5 && memcmp(found, "FirsT", 5) == 0);
    THAT(vector[1].readSize == 13 && memcmp(found + 50, "second\0\0\0\0gap", 13) == 0);
}

static void check_overwrite(SaCkptCheckpointHandleT checkpoint, SaCkptCheckpointHandleT reader) {
    char data[200];
    memset(data, 'o', sizeof data);
    SaCkptSectionIdT section = section_of("1"), missing = section_of("missing");
    SaCkptSectionIdT impossible = {1, NULL};
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(checkpoint, NULL, data, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(checkpoint, &section, NULL, 1));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptSectionOverwrite(NOWHERE, &section, data, 1));
    IS(SA_AIS_ERR_ACCESS, saCkptSectionOverwrite(reader, &section, data, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(checkpoint, &section, data, 101));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(checkpoint, &section, data, ~0ULL));
    IS(SA_AIS_ERR_NOT_EXIST, saCkptSectionOverwrite(checkpoint, &missing, data, 1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptSectionOverwrite(checkpoint, &impossible, data, 1));
    OK(saCkptSectionOverwrite(checkpoint, &section, data, 100));
    OK(saCkptSectionOverwrite(checkpoint, &section, "shrunk", 6));
    SaCkptIOVectorElementT read = element("1", data, 100, 0);
    OK(saCkptCheckpointRead(reader, &read, 1, NULL));
    THAT(read.readSize == 6 && memcmp(data, "shrunk", 6) == 0);
    OK(saCkptSectionOverwrite(checkpoint, &section, data, 0));
    OK(saCkptCheckpointRead(reader, &read, 1, NULL));
    THAT(read.readSize == 0);
    OK(saCkptSectionOverwrite(checkpoint, &section, "0123456789", 10));
}

static void check_read(SaCkptCheckpointHandleT checkpoint, SaCkptCheckpointHandleT writer) {
    char found[200];
    SaUint32T wrong = 77;
    SaCkptIOVectorElementT vector[2];
    memset(found, '#', sizeof found);

    vector[0] = element("1", found, 100, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, NULL, 1, &wrong));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointRead(NOWHERE, vector, 1, &wrong));
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointRead(writer, vector, 1, &wrong));
    vector[1] = element("1", found, 0, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, vector, 2, &wrong));
    vector[1] = element("missing", found, 10, 0);
    wrong = 77;
    IS(SA_AIS_ERR_NOT_EXIST, saCkptCheckpointRead(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    vector[1] = element("1", found, 101, 0);
    wrong = 77;
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, vector, 2, &wrong));
    THAT(wrong == 1);
    vector[1] = element("1", found, ~0ULL, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, vector, 2, NULL));
    vector[1] = element("1", found, 1ULL << 40, 0);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, vector, 2, NULL));
    vector[1] = element("1", found, 10, 11);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointRead(checkpoint, vector, 2, NULL));

    /* part of it, into the caller's memory and no byte further */
    vector[0] = element("1", found, 4, 3);
    vector[0].readSize = 99;
    OK(saCkptCheckpointRead(checkpoint, vector, 1, &wrong));
    THAT(vector[0].readSize == 4 && memcmp(found, "3456#", 5) == 0);
    vector[0] = element("1", found, 4, 8);
    OK(saCkptCheckpointRead(checkpoint, vector, 1, NULL));
    THAT(vector[0].readSize == 2 && memcmp(found, "8956#", 5) == 0);
    vector[0] = element("1", found, 4, 10);
    OK(saCkptCheckpointRead(checkpoint, vector, 1, NULL));
    THAT(vector[0].readSize == 0);

    /* into memory of the library, given back in both ways */
    vector[0] = element("1", NULL, 0, 2);
    vector[1] = element("2", NULL, 12345, 0);
    OK(saCkptCheckpointRead(checkpoint, vector, 2, NULL));
    THAT(vector[0].readSize == 8 && memcmp(vector[0].dataBuffer, "23456789", 8) == 0);
    THAT(vector[1].readSize == 13);
    THAT(vector[0].dataBuffer != vector[1].dataBuffer);
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptIOVectorElementDataFree(checkpoint, NULL));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptIOVectorElementDataFree(NOWHERE, vector[0].dataBuffer));
    OK(saCkptIOVectorElementDataFree(checkpoint, vector[0].dataBuffer));
    free(vector[1].dataBuffer);
}

void check_data(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT attributes = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointHandleT both = opened(client, "c-data", &attributes, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-data", NULL, READ);
    SaCkptCheckpointHandleT writer = opened(client, "c-data", NULL, WRITE);
    OK(create(both, "1", "first"));
    OK(create(both, "2", "second"));
    check_write(writer, reader);
    check_overwrite(writer, reader);
    check_read(reader, writer);
    OK(saCkptCheckpointClose(both));
    OK(saCkptCheckpointClose(reader));
    OK(saCkptCheckpointClose(writer));

    /* 25.6 MB in one call; checkpointSize is no quota */
    enum { LARGE = 25600000 };
    SaCkptCheckpointCreationAttributesT roomy = attributes;
    roomy.checkpointSize = 4096;
    roomy.maxSectionSize = 80 << 20;
    both = opened(client, "c-large", &roomy, CREATE | READ | WRITE);
    OK(create(both, "1", ""));
    SaCkptSectionIdT section = section_of("1");
    char *large = malloc(LARGE);
    for (size_t at = 0; at < LARGE; at++)
        large[at] = (char)(at * 2654435761u >> 24);
    OK(saCkptSectionOverwrite(both, &section, large, LARGE));
    SaCkptIOVectorElementT read = element("1", NULL, 0, 0);
    OK(saCkptCheckpointRead(both, &read, 1, NULL));
    THAT(read.readSize == LARGE && memcmp(read.dataBuffer, large, LARGE) == 0);
    OK(saCkptIOVectorElementDataFree(both, read.dataBuffer));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptSectionOverwrite(both, &section, large, (64 << 20) + 1));

    /* 100 GB, without a copy of it: the same memory in each element */
    enum { MANY = 4096 };
    static SaCkptIOVectorElementT vector[MANY];
    SaUint32T wrong = 77;
    for (int number = 0; number < MANY; number++)
        vector[number] = element("1", large, LARGE, 0);
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(both, vector, MANY, &wrong));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(both, vector, 6, &wrong));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointWrite(both, vector, MANY + 1, &wrong));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointRead(both, vector, MANY + 1, &wrong));
    IS(SA_AIS_ERR_NO_RESOURCES, saCkptCheckpointRead(both, vector, 0xffffffff, NULL));
    THAT(wrong == 77);
    free(large);
    OK(saCkptFinalize(client));
}

void check_synchronize(void) {
    SaCkptHandleT client = client_of(2, 2);
    SaCkptCheckpointCreationAttributesT all = attributes_of(SA_CKPT_WR_ALL_REPLICAS);
    SaCkptCheckpointCreationAttributesT lazy = attributes_of(SA_CKPT_WR_ACTIVE_REPLICA);
    SaCkptCheckpointHandleT checkpoint =
        opened(client, "c-synchronize", &lazy, CREATE | READ | WRITE);
    SaCkptCheckpointHandleT reader = opened(client, "c-synchronize", NULL, READ);
    SaCkptCheckpointHandleT eager = opened(client, "c-all", &all, CREATE | WRITE);

    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointSynchronize(checkpoint, -1));
    IS(SA_AIS_ERR_INVALID_PARAM, saCkptCheckpointSynchronize(NOWHERE, -1));
    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointSynchronize(NOWHERE, WAIT));
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointSynchronize(reader, WAIT));
    IS(SA_AIS_ERR_BAD_OPERATION, saCkptCheckpointSynchronize(eager, WAIT));
    OK(saCkptCheckpointSynchronize(checkpoint, WAIT)); /* no sections at all */
    for (int number = 0; number < 50; number++) {
        SaCkptSectionIdT section = section_of("1");
        if (number == 0)
            OK(create(checkpoint, "1", "data"));
        OK(saCkptSectionOverwrite(checkpoint, &section, &number, sizeof number));
    }
    OK(saCkptCheckpointSynchronize(checkpoint, WAIT));
    OK(saCkptCheckpointSynchronize(checkpoint, SA_TIME_MAX));

    IS(SA_AIS_ERR_BAD_HANDLE, saCkptCheckpointSynchronizeAsync(NOWHERE, 1));
    IS(SA_AIS_ERR_ACCESS, saCkptCheckpointSynchronizeAsync(reader, 1));
    IS(SA_AIS_ERR_BAD_OPERATION, saCkptCheckpointSynchronizeAsync(eager, 1));
    synchronizations = 0;
    OK(saCkptCheckpointSynchronizeAsync(checkpoint, 42));
    OK(dispatch_until(client, &synchronizations, 1));
    THAT(last_invocation == 42 && last_error == SA_AIS_OK);

    SaCkptHandleT silent;
    SaVersionT version = {'B', 2, 2};
    OK(saCkptInitialize(&silent, NULL, &version));
    SaCkptCheckpointHandleT mute = opened(silent, "c-synchronize", NULL, WRITE);
    IS(SA_AIS_ERR_INIT, saCkptCheckpointSynchronizeAsync(mute, 1));
    OK(saCkptFinalize(silent));
    OK(saCkptFinalize(client));
}
