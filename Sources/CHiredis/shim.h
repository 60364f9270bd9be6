// hiredis as a codec: its reader, with replies built in an arena instead of one allocation per element.
//
// The signature of createArray differs between hiredis 0.14 and 1.x, which is why these callbacks are C.
#ifndef GATEWAY_CHIREDIS_SHIM_H
#define GATEWAY_CHIREDIS_SHIM_H

#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// One element of a reply. Children of an array stand side by side from `first`.
typedef struct gw_reply_node {
    int type;
    int64_t integer;
    uint32_t first;
    uint32_t count;
    uint32_t text;
    uint32_t text_count;
} gw_reply_node;

// Nodes and texts of the reply being read. Both grow up to their bound and are kept for the next reply.
typedef struct gw_reply_arena {
    gw_reply_node *nodes;
    uint32_t node_count, node_capacity, node_limit;
    char *text;
    uint32_t text_count, text_capacity, text_limit;
} gw_reply_arena;

static inline int gw_arena_reserve_nodes(gw_reply_arena *arena, uint64_t more) {
    uint64_t wanted = arena->node_count + more;
    if (wanted > arena->node_limit) return 0;
    if (wanted <= arena->node_capacity) return 1;
    uint64_t capacity = arena->node_capacity ? arena->node_capacity : 64;
    while (capacity < wanted) capacity *= 2;
    gw_reply_node *nodes = realloc(arena->nodes, capacity * sizeof(gw_reply_node));
    if (!nodes) return 0;
    arena->nodes = nodes;
    arena->node_capacity = (uint32_t)capacity;
    return 1;
}

// The node for a task: the root, or a place that its parent has set aside. NULL when over the bound.
static inline gw_reply_node *gw_arena_place(const redisReadTask *task) {
    gw_reply_arena *arena = task->privdata;
    if (!task->parent) {
        arena->node_count = 0;
        arena->text_count = 0;
        if (!gw_arena_reserve_nodes(arena, 1)) return NULL;
        arena->node_count = 1;
        return &arena->nodes[0];
    }
    gw_reply_node *parent = &arena->nodes[(uintptr_t)task->parent->obj - 1];
    if ((uint32_t)task->idx >= parent->count) return NULL;
    return &arena->nodes[parent->first + (uint32_t)task->idx];
}

static inline void *gw_arena_object(const redisReadTask *task, const gw_reply_node *node) {
    gw_reply_arena *arena = task->privdata;
    return (void *)(uintptr_t)(node - arena->nodes + 1);
}

// Redis speaks RESP3 only to those who ask for it; hiredis 1.x would read it. NULL refuses the reply.
static inline void *gw_create_string(const redisReadTask *task, char *text, size_t count) {
    if (task->type != REDIS_REPLY_STRING && task->type != REDIS_REPLY_STATUS && task->type != REDIS_REPLY_ERROR)
        return NULL;
    gw_reply_node *node = gw_arena_place(task);
    gw_reply_arena *arena = task->privdata;
    if (!node || count > arena->text_limit - arena->text_count) return NULL;
    uint64_t wanted = arena->text_count + (uint64_t)count;
    if (wanted > arena->text_capacity) {
        uint64_t capacity = arena->text_capacity ? arena->text_capacity : 4096;
        while (capacity < wanted) capacity *= 2;
        char *grown = realloc(arena->text, capacity);
        if (!grown) return NULL;
        arena->text = grown;
        arena->text_capacity = (uint32_t)capacity;
    }
    memset(node, 0, sizeof *node);
    node->type = task->type;
    node->text = arena->text_count;
    node->text_count = (uint32_t)count;
    if (count) memcpy(arena->text + arena->text_count, text, count);
    arena->text_count += (uint32_t)count;
    return gw_arena_object(task, node);
}

#if HIREDIS_MAJOR >= 1
static inline void *gw_create_array(const redisReadTask *task, size_t count) {
#else
static inline void *gw_create_array(const redisReadTask *task, int count) {
#endif
    if (task->type != REDIS_REPLY_ARRAY) return NULL;
    gw_reply_node *node = gw_arena_place(task);
    gw_reply_arena *arena = task->privdata;
    if (!node || (uint64_t)count > arena->node_limit) return NULL;
    uintptr_t index = (uintptr_t)(node - arena->nodes);
    if (!gw_arena_reserve_nodes(arena, (uint64_t)count)) return NULL;
    node = &arena->nodes[index];
    memset(node, 0, sizeof *node);
    node->type = task->type;
    node->first = arena->node_count;
    node->count = (uint32_t)count;
    if (count) memset(&arena->nodes[arena->node_count], 0, (size_t)count * sizeof *node);
    arena->node_count += (uint32_t)count;
    return (void *)(index + 1);
}

static inline void *gw_create_integer(const redisReadTask *task, long long value) {
    if (task->type != REDIS_REPLY_INTEGER) return NULL;
    gw_reply_node *node = gw_arena_place(task);
    if (!node) return NULL;
    memset(node, 0, sizeof *node);
    node->type = task->type;
    node->integer = value;
    return gw_arena_object(task, node);
}

static inline void *gw_create_nil(const redisReadTask *task) {
    gw_reply_node *node = gw_arena_place(task);
    if (!node) return NULL;
    memset(node, 0, sizeof *node);
    node->type = REDIS_REPLY_NIL;
    return gw_arena_object(task, node);
}

#if HIREDIS_MAJOR >= 1
// Without these hiredis would return such a value as an object that stands in no arena.
static inline void *gw_create_double(const redisReadTask *task, double value, char *text, size_t count) {
    (void)task, (void)value, (void)text, (void)count;
    return NULL;
}
static inline void *gw_create_bool(const redisReadTask *task, int value) {
    (void)task, (void)value;
    return NULL;
}
#endif

static inline void gw_free_object(void *object) { (void)object; }

// hiredis keeps the pointer, so the table is one object for the whole process.
static inline redisReplyObjectFunctions *gw_reply_functions(void) {
    static redisReplyObjectFunctions functions = {
        .createString = gw_create_string,
        .createArray = gw_create_array,
        .createInteger = gw_create_integer,
        .createNil = gw_create_nil,
#if HIREDIS_MAJOR >= 1
        .createDouble = gw_create_double,
        .createBool = gw_create_bool,
#endif
        .freeObject = gw_free_object,
    };
    return &functions;
}

static inline redisReader *gw_reader_create(gw_reply_arena *arena) {
    redisReader *reader = redisReaderCreateWithFunctions(gw_reply_functions());
    if (reader) {
        reader->privdata = arena;
        // Keeps the buffer instead of giving it back whenever it is empty.
        reader->maxbuf = 0;
    }
    return reader;
}

#endif
