/* The spike that native.py measures: two stretches of a leader's way in C, for the plain overwrite. Never shipped.
 *
 * As raftckpt/model/express.py does, each function only ever says yes: whatever is not exactly the plain case
 * (an incomplete or damaged frame, another operation, a number out of bounds, a sequence that does not follow,
 * a handle that is not known to be synchronous, no room) is None, nothing has happened, and the product's own
 * way is to be taken. A yes must be, to the byte, what that way would have made.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

enum { FRAME_HEAD = 8, RECORD_HEAD = 48, MESSAGE_ITEMS = 7, NUMBER_MAX = 9 };

/* --- CRC32C -------------------------------------------------------------------------------------------- */

static uint32_t table[256];

static void fill_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
        table[byte] = crc;
    }
}

static uint32_t plain_crc(uint32_t crc, const uint8_t *data, size_t size) {
    while (size--)
        crc = crc >> 8 ^ table[(uint8_t)crc ^ *data++];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t fast_crc(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t wide = crc, word;
    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (size--)
        crc = _mm_crc32_u8(crc, *data++);
    return crc;
}
static int fast;
#endif

static uint32_t extend(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
#if defined(__x86_64__)
    if (fast)
        return ~fast_crc(crc, data, size);
#endif
    return ~plain_crc(crc, data, size);
}

/* --- msgpack ------------------------------------------------------------------------------------------- */

typedef struct { const uint8_t *at, *end; } In;

static uint64_t big(const uint8_t *at, int size) {
    uint64_t number = 0;
    while (size--)
        number = number << 8 | *at++;
    return number;
}

/* A number of 0..2**63-1, in any of its forms. */
static int number(In *in, int64_t *found) {
    if (in->at == in->end)
        return 0;
    uint8_t head = *in->at++;
    if (head < 0x80) {
        *found = head;
        return 1;
    }
    if (head < 0xcc || head > 0xd3)
        return 0;
    int size = 1 << (head & 3), is_signed = head >= 0xd0;
    if (in->end - in->at < size)
        return 0;
    uint64_t value = big(in->at, size);
    in->at += size;
    if (value >> (is_signed ? 8 * size - 1 : 63))
        return 0; /* less than none, or too much */
    *found = (int64_t)value;
    return 1;
}

static int bin(In *in, Py_ssize_t most, const uint8_t **data, Py_ssize_t *size) {
    if (in->at == in->end)
        return 0;
    uint8_t head = *in->at++;
    if (head < 0xc4 || head > 0xc6)
        return 0;
    int width = 1 << (head - 0xc4);
    if (in->end - in->at < width)
        return 0;
    *size = (Py_ssize_t)big(in->at, width);
    in->at += width;
    if (*size > most || in->end - in->at < *size)
        return 0;
    *data = in->at;
    in->at += *size;
    return 1;
}

static int array(In *in, Py_ssize_t *items) {
    if (in->at == in->end)
        return 0;
    uint8_t head = *in->at++;
    if ((head & 0xf0) == 0x90) {
        *items = head & 0x0f;
        return 1;
    }
    if (head != 0xdc && head != 0xdd)
        return 0;
    int width = head == 0xdc ? 2 : 4;
    if (in->end - in->at < width)
        return 0;
    *items = (Py_ssize_t)big(in->at, width);
    in->at += width;
    return 1;
}

static uint8_t *put_big(uint8_t *to, uint64_t value, int size) {
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
        *to++ = (uint8_t)(value >> shift);
    return to;
}

static uint8_t *put_number(uint8_t *to, int64_t value) {
    if (value < 0x80) {
        *to++ = (uint8_t)value;
        return to;
    }
    int width = value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
    *to++ = (uint8_t)(0xcc + width);
    return put_big(to, (uint64_t)value, 1 << width);
}

static uint8_t *put_bin(uint8_t *to, const uint8_t *data, Py_ssize_t size) {
    int width = size <= 0xff ? 0 : size <= 0xffff ? 1 : 2;
    *to++ = (uint8_t)(0xc4 + width);
    to = put_big(to, (uint64_t)size, 1 << width);
    memcpy(to, data, size);
    return to + size;
}

static uint8_t *put_array(uint8_t *to, Py_ssize_t items) {
    if (items < 16) {
        *to++ = (uint8_t)(0x90 | items);
        return to;
    }
    int width = items <= 0xffff ? 2 : 4;
    *to++ = width == 2 ? 0xdc : 0xdd;
    return put_big(to, (uint64_t)items, width);
}

/* --- what the product says once, at import ------------------------------------------------------------- */

static PyObject *overwrite, *put; /* the records */
static int64_t overwrite_tag, put_tag;
static Py_ssize_t id_max, data_max, frame_max, messages_max, batch_max, replies_max;
static int64_t batch_version, entry_word;
static uint8_t regular;

static PyObject *set_up(PyObject *self, PyObject *arguments) {
    Py_ssize_t *sizes[] = {&id_max, &data_max, &frame_max, &messages_max, &batch_max, &replies_max};
    if (!PyArg_ParseTuple(arguments, "OLOL(nnnnnn)LLb", &overwrite, &overwrite_tag, &put, &put_tag, sizes[0],
                          sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], &batch_version, &entry_word, &regular))
        return NULL;
    Py_INCREF(overwrite);
    Py_INCREF(put);
    Py_RETURN_NONE;
}

typedef struct {
    int64_t tag, first, sequence, answered, handle;
    const uint8_t *id, *data;
    Py_ssize_t id_size, data_size;
} Write;

static int write_of(In *in, Write *found) {
    Py_ssize_t items;
    return array(in, &items) && items == MESSAGE_ITEMS && number(in, &found->tag) &&
           (found->tag == overwrite_tag || found->tag == put_tag) && number(in, &found->first) &&
           number(in, &found->sequence) && found->sequence > 0 && number(in, &found->answered) &&
           number(in, &found->handle) && bin(in, id_max, &found->id, &found->id_size) &&
           bin(in, data_max, &found->data, &found->data_size);
}

/* The record as the rooms behind expect it. */
static PyObject *record_of(const Write *from, PyObject *session, PyObject *handle) {
    PyObject *fields[] = {
        session, PyLong_FromLongLong(from->sequence), PyLong_FromLongLong(from->answered), handle,
        PyBytes_FromStringAndSize((const char *)from->id, from->id_size),
        PyBytes_FromStringAndSize((const char *)from->data, from->data_size),
    };
    PyObject *made = NULL;
    if (fields[1] && fields[2] && fields[4] && fields[5])
        made = PyObject_Vectorcall(from->tag == put_tag ? put : overwrite, fields, 6, NULL);
    Py_XDECREF(fields[1]);
    Py_XDECREF(fields[2]);
    Py_XDECREF(fields[4]);
    Py_XDECREF(fields[5]);
    return made;
}

/* --- bytes -> frames -> checked commands -> what they are in an entry ----------------------------------- */

/* take(data, session, proposed, room, room_bytes, synchronous) -> (requests, commands, costs, encoded) or None
 *
 * synchronous: dict, handle -> 0 if its writes are answered when they are committed. */
static PyObject *take(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 6 || !PyBytes_CheckExact(given[0]) || !PyDict_CheckExact(given[5])) {
        PyErr_SetString(PyExc_TypeError, "take(bytes, int, int, int, int, dict)");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(given[0]);
    Py_ssize_t size = PyBytes_GET_SIZE(given[0]);
    int64_t session = PyLong_AsLongLong(given[1]), proposed = PyLong_AsLongLong(given[2]);
    int64_t room = PyLong_AsLongLong(given[3]), room_bytes = PyLong_AsLongLong(given[4]);
    if (PyErr_Occurred())
        return NULL;
    const uint8_t *end = data + size;
    if (!size)
        Py_RETURN_NONE;
    /* frames first: one that is damaged ends the connection before anything begins */
    Py_ssize_t total = 0;
    for (const uint8_t *at = data; at < end;) {
        if (end - at < FRAME_HEAD)
            Py_RETURN_NONE;
        Py_ssize_t length = (Py_ssize_t)big(at, 4);
        uint32_t checksum = (uint32_t)big(at + 4, 4);
        at += FRAME_HEAD;
        if (length < 2 || length > frame_max || end - at < length || *at ||
            extend(0, at, (size_t)length) != checksum)
            Py_RETURN_NONE;
        In in = {at + 1, at + length};
        Py_ssize_t messages;
        if (!array(&in, &messages) || !messages || messages > messages_max)
            Py_RETURN_NONE;
        total += messages;
        at += length;
    }
    if (total > room)
        Py_RETURN_NONE;
    PyObject *requests = PyList_New(total), *commands = PyList_New(total), *costs = PyList_New(total);
    /* shorter than a command is here it cannot have been, but for its session's number */
    PyObject *encoded = PyBytes_FromStringAndSize(NULL, size + total * NUMBER_MAX);
    PyObject *handle = NULL, *result = NULL;
    int64_t handle_was = -1;
    Py_ssize_t done = 0;
    if (!requests || !commands || !costs || !encoded)
        goto fail;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(encoded);
    for (const uint8_t *at = data; at < end;) {
        Py_ssize_t length = (Py_ssize_t)big(at, 4), messages;
        at += FRAME_HEAD;
        In in = {at + 1, at + length};
        array(&in, &messages);
        while (messages--) {
            Write write;
            if (!write_of(&in, &write) || write.sequence != proposed + 1)
                goto no;
            int64_t cost = 60 + write.id_size + write.data_size;
            if (cost > room_bytes)
                goto no;
            if (write.handle != handle_was) {
                Py_XDECREF(handle);
                if (!(handle = PyLong_FromLongLong(write.handle)))
                    goto fail;
                PyObject *uid = PyDict_GetItemWithError(given[5], handle);
                if (!uid && PyErr_Occurred())
                    goto fail;
                if (!uid || PyObject_IsTrue(uid))
                    goto no;
                handle_was = write.handle;
            }
            PyObject *request = PyLong_FromLongLong(write.first), *cost_of = PyLong_FromLongLong(cost);
            PyObject *command = record_of(&write, given[1], handle);
            if (request)
                PyList_SET_ITEM(requests, done, request);
            if (command)
                PyList_SET_ITEM(commands, done, command);
            if (cost_of)
                PyList_SET_ITEM(costs, done, cost_of);
            if (!request || !command || !cost_of)
                goto fail;
            done++;
            *to++ = 0x90 | MESSAGE_ITEMS;
            to = put_number(to, write.tag);
            to = put_number(to, session);
            to = put_number(to, write.sequence);
            to = put_number(to, write.answered);
            to = put_number(to, write.handle);
            to = put_bin(to, write.id, write.id_size);
            to = put_bin(to, write.data, write.data_size);
            proposed++;
            room_bytes -= cost;
        }
        if (in.at != in.end)
            goto no;
        at += length;
    }
    if (_PyBytes_Resize(&encoded, (char *)to - PyBytes_AS_STRING(encoded)) == 0)
        result = PyTuple_Pack(4, requests, commands, costs, encoded);
    goto fail;
no:
    result = Py_NewRef(Py_None);
fail:
    Py_XDECREF(requests);
    Py_XDECREF(commands);
    Py_XDECREF(costs);
    Py_XDECREF(encoded);
    Py_XDECREF(handle);
    return result;
}

/* record(now_ns, count, parts, sequence, claim, index, term, salt) -> (payload, header, checksum)
 *
 * The entry of commands that take() encoded, and the header of its journal record. */
static PyObject *record(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 8 || !PyList_CheckExact(given[2])) {
        PyErr_SetString(PyExc_TypeError, "record(now, count, parts, sequence, claim, index, term, salt)");
        return NULL;
    }
    int64_t now = PyLong_AsLongLong(given[0]), commands = PyLong_AsLongLong(given[1]);
    uint64_t numbers[4];
    for (int each = 0; each < 4; each++)
        numbers[each] = PyLong_AsUnsignedLongLong(given[3 + each]);
    uint32_t salt = (uint32_t)PyLong_AsUnsignedLong(given[7]);
    if (PyErr_Occurred())
        return NULL;
    if (now < 0 || commands < 1 || commands > batch_max) {
        PyErr_SetString(PyExc_ValueError, "no batch");
        return NULL;
    }
    PyObject *parts = given[2];
    Py_ssize_t size = 0;
    for (Py_ssize_t each = 0; each < PyList_GET_SIZE(parts); each++)
        size += PyBytes_GET_SIZE(PyList_GET_ITEM(parts, each));
    uint8_t head[2 + 2 * NUMBER_MAX + 5], *to = head;
    *to++ = regular;
    *to++ = 0x93;
    to = put_number(to, batch_version);
    to = put_number(to, now);
    to = put_array(to, commands);
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (to - head) + size);
    PyObject *header = PyBytes_FromStringAndSize(NULL, RECORD_HEAD);
    if (!payload || !header) {
        Py_XDECREF(payload);
        Py_XDECREF(header);
        return NULL;
    }
    uint8_t *whole = (uint8_t *)PyBytes_AS_STRING(payload), *at = whole + (to - head);
    memcpy(whole, head, to - head);
    for (Py_ssize_t each = 0; each < PyList_GET_SIZE(parts); each++) {
        PyObject *part = PyList_GET_ITEM(parts, each);
        memcpy(at, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part));
        at += PyBytes_GET_SIZE(part);
    }
    uint8_t *fields = (uint8_t *)PyBytes_AS_STRING(header); /* little endian, as this machine is */
    uint32_t small[3] = {(uint32_t)entry_word, (uint32_t)(at - whole), extend(0, whole, (size_t)(at - whole))};
    memcpy(fields, small, sizeof small);
    memcpy(fields + sizeof small, numbers, sizeof numbers);
    uint32_t checksum = extend(salt, fields, RECORD_HEAD - 4);
    memcpy(fields + RECORD_HEAD - 4, &checksum, 4);
    return Py_BuildValue("(NNk)", payload, header, (unsigned long)checksum);
}

/* --- results -> reply bytes ------------------------------------------------------------------------------ */

/* replies(requests, results) -> the frame that tells them, or None */
static PyObject *replies(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    if (count != 2 || !PyList_CheckExact(given[0]) || !PyList_CheckExact(given[1])) {
        PyErr_SetString(PyExc_TypeError, "replies(list, list)");
        return NULL;
    }
    Py_ssize_t total = PyList_GET_SIZE(given[0]);
    if (!total || total > replies_max || PyList_GET_SIZE(given[1]) != total)
        Py_RETURN_NONE;
    PyObject *frame = PyBytes_FromStringAndSize(NULL, FRAME_HEAD + 1 + 5 + total * (3 + 2 * NUMBER_MAX));
    if (!frame)
        return NULL;
    uint8_t *start = (uint8_t *)PyBytes_AS_STRING(frame), *body = start + FRAME_HEAD, *to = body;
    *to++ = 0;
    to = put_array(to, total);
    for (Py_ssize_t each = 0; each < total; each++) {
        PyObject *request = PyList_GET_ITEM(given[0], each), *result = PyList_GET_ITEM(given[1], each);
        if (!PyLong_CheckExact(request) || !PyTuple_Check(result) || PyTuple_GET_SIZE(result) != 2 ||
            !PyLong_CheckExact(PyTuple_GET_ITEM(result, 0)) || !PyLong_CheckExact(PyTuple_GET_ITEM(result, 1)))
            goto no;
        int64_t id = PyLong_AsLongLong(request), code = PyLong_AsLongLong(PyTuple_GET_ITEM(result, 0));
        int64_t value = PyLong_AsLongLong(PyTuple_GET_ITEM(result, 1));
        if (PyErr_Occurred()) {
            PyErr_Clear();
            goto no;
        }
        if (code != 1 || id < 0 || value < 0)
            goto no;
        *to++ = 0x94;
        *to++ = 0;
        to = put_number(to, id);
        *to++ = 1;
        to = put_number(to, value);
    }
    put_big(start, (uint64_t)(to - body), 4);
    put_big(start + 4, extend(0, body, (size_t)(to - body)), 4);
    _PyBytes_Resize(&frame, to - start);
    return frame;
no:
    Py_DECREF(frame);
    Py_RETURN_NONE;
}

/* --- an entry -> checked commands, on a follower ---------------------------------------------------------- */

/* commands(payload) -> (now_ns, records) or None; the payload is without the first byte of the log */
static PyObject *commands(PyObject *self, PyObject *payload) {
    if (!PyBytes_CheckExact(payload)) {
        PyErr_SetString(PyExc_TypeError, "commands(bytes)");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(payload);
    In in = {data, data + PyBytes_GET_SIZE(payload)};
    Py_ssize_t fields, total;
    int64_t version, now, session_was = -1, handle_was = -1;
    if (!array(&in, &fields) || fields != 3 || !number(&in, &version) || version != batch_version ||
        !number(&in, &now) || !array(&in, &total) || total > batch_max)
        Py_RETURN_NONE;
    PyObject *records = PyList_New(total), *session = NULL, *handle = NULL, *result = NULL;
    for (Py_ssize_t each = 0; records && each < total; each++) {
        Write write;
        if (!write_of(&in, &write))
            goto no;
        if (write.first != session_was) {
            Py_XDECREF(session);
            session = PyLong_FromLongLong(session_was = write.first);
        }
        if (write.handle != handle_was) {
            Py_XDECREF(handle);
            handle = PyLong_FromLongLong(handle_was = write.handle);
        }
        PyObject *command = session && handle ? record_of(&write, session, handle) : NULL;
        if (!command)
            goto fail;
        PyList_SET_ITEM(records, each, command);
    }
    if (in.at == in.end && records)
        result = Py_BuildValue("(LO)", (long long)now, records);
    else if (records) {
    no:
        result = Py_NewRef(Py_None);
    }
fail:
    Py_XDECREF(records);
    Py_XDECREF(session);
    Py_XDECREF(handle);
    return result;
}

/* walk(buffer): touch every cache line, so that what was in the caches is no more. */
static PyObject *walk(PyObject *self, PyObject *buffer) {
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    volatile uint8_t *bytes = view.buf;
    for (Py_ssize_t at = 0; at < view.len; at += 64)
        bytes[at]++;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"set_up", set_up, METH_VARARGS, NULL},
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, NULL},
    {"record", (PyCFunction)(void (*)(void))record, METH_FASTCALL, NULL},
    {"replies", (PyCFunction)(void (*)(void))replies, METH_FASTCALL, NULL},
    {"commands", commands, METH_O, NULL},
    {"walk", walk, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void) {
    fill_table();
#if defined(__x86_64__)
    fast = __builtin_cpu_supports("sse4.2");
#endif
    return PyModule_Create(&module);
}
