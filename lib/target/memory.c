/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A target in memory, for tests. It lives as long as its handle.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "target/internal.h"

struct object {
    struct object *next; /* sorted by name */
    char *name;
    uint8_t *data;
    uint64_t length;
};

struct memory {
    pthread_mutex_t lock; /* guards objects; not held while a listing's sink is called */
    struct object *objects;
};

static int32_t open_memory(void *user, const xvsa_target_request *request, void **ret_instance,
                           xvsa_error **error)
{
    (void)user;
    (void)request;
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&memory->lock, NULL);
    *ret_instance = memory;
    return 0;
}

static void free_object(struct object *object)
{
    if (object != NULL) {
        free(object->name);
        free(object->data);
        free(object);
    }
}

static void close_memory(void *instance)
{
    struct memory *memory = instance;
    while (memory->objects != NULL) {
        struct object *object = memory->objects;
        memory->objects = object->next;
        free_object(object);
    }
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

/* The link that points to the first object whose name is not less than name. */
static struct object **position(struct memory *memory, const char *name)
{
    struct object **at = &memory->objects;
    while (*at != NULL && strcmp((*at)->name, name) < 0)
        at = &(*at)->next;
    return at;
}

static struct object *find(struct memory *memory, const char *name)
{
    struct object *object = *position(memory, name);
    return object != NULL && strcmp(object->name, name) == 0 ? object : NULL;
}

static struct object *make_object(const char *name, const xvsa_buffer *pieces, uint32_t count)
{
    struct object *object = calloc(1, sizeof *object);
    if (object == NULL)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        object->length += pieces[i].length;
    object->name = strdup(name);
    object->data = malloc(object->length == 0 ? 1 : (size_t)object->length);
    if (object->name == NULL || object->data == NULL) {
        free_object(object);
        return NULL;
    }
    uint8_t *at = object->data;
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].length > 0)
            memcpy(at, pieces[i].data, (size_t)pieces[i].length);
        at += pieces[i].length;
    }
    return object;
}

static int32_t put_memory(void *instance, const xvsa_target_call *call, const char *name,
                          const xvsa_buffer *pieces, uint32_t count, uint32_t flags,
                          xvsa_error **error)
{
    (void)call;
    struct memory *memory = instance;
    struct object *object = make_object(name, pieces, count);
    if (object == NULL)
        return xv_fail_memory(error);
    pthread_mutex_lock(&memory->lock);
    struct object **at = position(memory, name);
    struct object *old = *at != NULL && strcmp((*at)->name, name) == 0 ? *at : NULL;
    bool refused = old != NULL && (flags & XVSA_PUT_IF_ABSENT) != 0;
    if (!refused) {
        object->next = old != NULL ? old->next : *at;
        *at = object;
    }
    pthread_mutex_unlock(&memory->lock);
    free_object(refused ? object : old);
    if (refused)
        return xv_fail(error, XVSA_ERR_EXISTS, "target", "'%s' exists", name);
    return 0;
}

static int fail_missing(const char *name, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_NOT_FOUND, "target", "there is no object '%s'", name);
}

static int32_t get_memory(void *instance, const xvsa_target_call *call, const char *name,
                          uint64_t offset, void *buffer, uint64_t length, uint64_t *ret_length,
                          xvsa_error **error)
{
    (void)call;
    struct memory *memory = instance;
    pthread_mutex_lock(&memory->lock);
    struct object *object = find(memory, name);
    if (object != NULL) {
        uint64_t left = offset < object->length ? object->length - offset : 0;
        *ret_length = length < left ? length : left;
        if (*ret_length > 0)
            memcpy(buffer, object->data + offset, (size_t)*ret_length);
    }
    pthread_mutex_unlock(&memory->lock);
    return object == NULL ? fail_missing(name, error) : 0;
}

static int32_t stat_memory(void *instance, const xvsa_target_call *call, const char *name,
                           xvsa_object_info *info, xvsa_error **error)
{
    (void)call;
    struct memory *memory = instance;
    pthread_mutex_lock(&memory->lock);
    struct object *object = find(memory, name);
    if (object != NULL)
        info->length = object->length;
    pthread_mutex_unlock(&memory->lock);
    return object == NULL ? fail_missing(name, error) : 0;
}

/* Copies the next row; false at the end. */
static bool next_row(struct memory *memory, const char *prefix, const char *after, char *name,
                     size_t room, uint64_t *ret_length)
{
    bool found = false;
    pthread_mutex_lock(&memory->lock);
    for (struct object *o = memory->objects; o != NULL && !found; o = o->next) {
        if (strncmp(o->name, prefix, strlen(prefix)) == 0 && strcmp(o->name, after) > 0 &&
            strlen(o->name) < room) {
            memcpy(name, o->name, strlen(o->name) + 1);
            *ret_length = o->length;
            found = true;
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return found;
}

static int32_t list_memory(void *instance, const xvsa_target_call *call, const char *prefix,
                           const char *after, xvsa_list_fn fn, void *sink, xvsa_error **error)
{
    (void)call;
    (void)error;
    char last[128] = "";
    char name[128];
    xvsa_object_info info = XVSA_OBJECT_INFO_INIT;
    if (after != NULL && strlen(after) < sizeof last)
        memcpy(last, after, strlen(after) + 1);
    while (next_row(instance, prefix, last, name, sizeof name, &info.length)) {
        int32_t stopped = fn(sink, name, &info);
        if (stopped != 0)
            return stopped;
        memcpy(last, name, sizeof last);
    }
    return 0;
}

static int32_t remove_memory(void *instance, const xvsa_target_call *call, const char *name,
                             xvsa_error **error)
{
    (void)call;
    (void)error;
    struct memory *memory = instance;
    pthread_mutex_lock(&memory->lock);
    struct object **at = position(memory, name);
    struct object *object = *at != NULL && strcmp((*at)->name, name) == 0 ? *at : NULL;
    if (object != NULL)
        *at = object->next;
    pthread_mutex_unlock(&memory->lock);
    free_object(object);
    return 0;
}

const xvsa_target_ops xv_memory_ops = {
    .size = sizeof(xvsa_target_ops),
    .open = open_memory,
    .close = close_memory,
    .put = put_memory,
    .get = get_memory,
    .stat = stat_memory,
    .list = list_memory,
    .remove = remove_memory,
};
