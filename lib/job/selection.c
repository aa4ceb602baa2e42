/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/selection.h"

#include <fnmatch.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

enum kind { ALL, NAME, UUID, TAG, PATTERN, REGEX, DEVICE, KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = {"all",     "name",  "uuid",  "tag",
                                                   "pattern", "regex", "device"};

/* One way to name VMs or disks. */
struct matcher {
    enum kind kind;
    char *text;
    char *vm; /* of a disk's: only those of the VM with this uuid or name; NULL: any VM's */
    regex_t regex;
    bool has_regex;
};

struct matchers {
    struct matcher *items;
    size_t count;
};

struct xv_selection {
    struct matchers vms;
    struct matchers excluded_vms;
    struct matchers excluded_disks;
};

static void free_matchers(struct matchers *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].has_regex)
            regfree(&list->items[i].regex);
        free(list->items[i].text);
        free(list->items[i].vm);
    }
    free(list->items);
}

void xv_selection_free(struct xv_selection *selection)
{
    if (selection == NULL)
        return;
    free_matchers(&selection->vms);
    free_matchers(&selection->excluded_vms);
    free_matchers(&selection->excluded_disks);
    free(selection);
}

static int compile(struct matcher *matcher, const char *path, xvsa_error **error)
{
    int fault = regcomp(&matcher->regex, matcher->text, REG_EXTENDED | REG_NOSUB);
    if (fault != 0) {
        char text[128];
        regerror(fault, &matcher->regex, text, sizeof text);
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.regex: \"%s\": %s", path, matcher->text,
                       text);
    }
    matcher->has_regex = true;
    return 0;
}

static int read_value(const json_t *json, const char *path, struct matcher *ret, xvsa_error **error)
{
    const char *name = kind_names[ret->kind];
    if (ret->kind == ALL) {
        if (!json_is_true(json_object_get(json, name)))
            return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.all: must be true", path);
        return 0;
    }
    const char *text = NULL;
    int rc = xv_json_read_text(json, path, name, &text, error);
    if (rc != 0)
        return rc;
    ret->text = strdup(text);
    if (ret->text == NULL)
        return xv_fail_memory(error);
    return ret->kind == REGEX ? compile(ret, path, error) : 0;
}

/* Reads one matcher; allowed is a set of bits of kinds. */
static int read_matcher(const json_t *json, const char *path, unsigned allowed, bool of_disks,
                        struct matcher *ret, xvsa_error **error)
{
    const char *names[KIND_COUNT + 2] = {NULL};
    size_t name_count = 0;
    unsigned found = 0;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        if ((allowed & 1u << kind) == 0)
            continue;
        names[name_count++] = kind_names[kind];
        if (json_object_get(json, kind_names[kind]) != NULL) {
            ret->kind = (enum kind)kind;
            found++;
        }
    }
    if (of_disks)
        names[name_count] = "vm";
    int rc = xv_json_check_members(json, path, names, error);
    if (rc == 0 && found != 1)
        rc =
            xv_fail(error, XVSA_ERR_INVALID, "job", "%s: must have exactly one way to match", path);
    if (rc == 0)
        rc = read_value(json, path, ret, error);
    const char *vm = NULL;
    if (rc == 0 && of_disks)
        rc = xv_json_read_text(json, path, "vm", &vm, error);
    if (rc == 0 && vm != NULL && (ret->vm = strdup(vm)) == NULL)
        rc = xv_fail_memory(error);
    return rc;
}

static int read_matchers(const json_t *parent, const char *path, const char *member,
                         unsigned allowed, bool of_disks, struct matchers *ret, xvsa_error **error)
{
    const json_t *array = NULL;
    int rc = xv_json_read_array(parent, path, member, &array, error);
    size_t count = json_array_size(array);
    if (rc != 0 || count == 0)
        return rc;
    ret->items = calloc(count, sizeof *ret->items);
    if (ret->items == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char item_path[160];
        snprintf(item_path, sizeof item_path, "%s.%s[%zu]", path, member, i);
        ret->count = i + 1;
        rc = read_matcher(json_array_get(array, i), item_path, allowed, of_disks, &ret->items[i],
                          error);
    }
    return rc;
}

static int read_exclusions(const json_t *json, const char *path, struct xv_selection *selection,
                           xvsa_error **error)
{
    static const char *const members[] = {"vms", "disks", NULL};
    const unsigned of_vms = 1u << NAME | 1u << UUID | 1u << TAG | 1u << PATTERN | 1u << REGEX;
    const unsigned of_disks =
        1u << ALL | 1u << NAME | 1u << UUID | 1u << PATTERN | 1u << REGEX | 1u << DEVICE;
    char exclude_path[128];
    snprintf(exclude_path, sizeof exclude_path, "%s.exclude", path);
    const json_t *exclude = NULL;
    int rc = xv_json_read_object(json, path, "exclude", &exclude, error);
    if (rc != 0 || exclude == NULL)
        return rc;
    rc = xv_json_check_members(exclude, exclude_path, members, error);
    if (rc == 0)
        rc = read_matchers(exclude, exclude_path, "vms", of_vms, false, &selection->excluded_vms,
                           error);
    if (rc == 0)
        rc = read_matchers(exclude, exclude_path, "disks", of_disks, true,
                           &selection->excluded_disks, error);
    return rc;
}

int xv_selection_read(const json_t *json, const char *path, struct xv_selection **ret,
                      xvsa_error **error)
{
    static const char *const members[] = {"vms", "exclude", NULL};
    const unsigned kinds =
        1u << ALL | 1u << NAME | 1u << UUID | 1u << TAG | 1u << PATTERN | 1u << REGEX;
    int rc = xv_json_check_members(json, path, members, error);
    if (rc != 0)
        return rc;
    struct xv_selection *selection = calloc(1, sizeof *selection);
    if (selection == NULL)
        return xv_fail_memory(error);
    rc = read_matchers(json, path, "vms", kinds, false, &selection->vms, error);
    if (rc == 0 && selection->vms.count == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "job", "%s.vms: must name at least one VM", path);
    if (rc == 0)
        rc = read_exclusions(json, path, selection, error);
    if (rc != 0) {
        xv_selection_free(selection);
        return rc;
    }
    *ret = selection;
    return 0;
}

static bool matches_name(const struct matcher *matcher, const char *name)
{
    switch (matcher->kind) {
    case NAME:
        return strcmp(matcher->text, name) == 0;
    case PATTERN:
        return fnmatch(matcher->text, name, 0) == 0;
    case REGEX:
        return regexec(&matcher->regex, name, 0, NULL, 0) == 0;
    default:
        return false;
    }
}

static bool has_tag(const struct xv_vm *vm, const char *tag)
{
    for (size_t i = 0; i < vm->tag_count; i++) {
        if (strcmp(vm->tags[i], tag) == 0)
            return true;
    }
    return false;
}

static bool matches_vm(const struct matcher *matcher, const struct xv_vm *vm)
{
    switch (matcher->kind) {
    case ALL:
        return true;
    case UUID:
        return strcasecmp(matcher->text, vm->uuid) == 0;
    case TAG:
        return has_tag(vm, matcher->text);
    default:
        return matches_name(matcher, vm->name);
    }
}

static bool any_matches_vm(const struct matchers *list, const struct xv_vm *vm)
{
    for (size_t i = 0; i < list->count; i++) {
        if (matches_vm(&list->items[i], vm))
            return true;
    }
    return false;
}

/* Snapshots, templates and control domains are never part of a selection; nor is a VM of ours that a
 * restore has not finished. */
static bool is_selectable(const struct xv_vm *vm)
{
    return !vm->is_template && !vm->is_snapshot && !vm->is_control_domain && vm->tag == NULL;
}

static int check_found(const struct xv_selection *selection, const struct xv_inventory *inventory,
                       xvsa_error **error)
{
    for (size_t i = 0; i < selection->vms.count; i++) {
        const struct matcher *matcher = &selection->vms.items[i];
        bool found = matcher->kind != UUID && matcher->kind != NAME;
        for (size_t j = 0; !found && j < inventory->vm_count; j++)
            found = is_selectable(&inventory->vms[j]) && matches_vm(matcher, &inventory->vms[j]);
        if (!found)
            return xv_fail(error, XVSA_ERR_NOT_FOUND, "job",
                           "selection: no VM of the pool has the %s \"%s\"",
                           kind_names[matcher->kind], matcher->text);
    }
    return 0;
}

static int compare_vms(const void *left, const void *right)
{
    const struct xv_vm *a = *(const struct xv_vm *const *)left;
    const struct xv_vm *b = *(const struct xv_vm *const *)right;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : strcmp(a->uuid, b->uuid);
}

int xv_selection_vms(const struct xv_selection *selection, const struct xv_inventory *inventory,
                     const struct xv_vm ***ret, size_t *ret_count, xvsa_error **error)
{
    int rc = check_found(selection, inventory, error);
    if (rc != 0)
        return rc;
    const struct xv_vm **vms = calloc(inventory->vm_count + 1, sizeof *vms);
    if (vms == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    for (size_t i = 0; i < inventory->vm_count; i++) {
        const struct xv_vm *vm = &inventory->vms[i];
        if (is_selectable(vm) && any_matches_vm(&selection->vms, vm) &&
            !any_matches_vm(&selection->excluded_vms, vm))
            vms[count++] = vm;
    }
    qsort(vms, count, sizeof *vms, compare_vms);
    *ret = vms;
    *ret_count = count;
    return 0;
}

static bool matches_disk(const struct matcher *matcher, const struct xv_vbd *vbd)
{
    if (matcher->vm != NULL && strcasecmp(matcher->vm, vbd->vm->uuid) != 0 &&
        strcmp(matcher->vm, vbd->vm->name) != 0)
        return false;
    switch (matcher->kind) {
    case ALL:
        return true;
    case UUID:
        return strcasecmp(matcher->text, vbd->vdi->uuid) == 0;
    case DEVICE:
        return strcmp(matcher->text, vbd->device) == 0;
    default:
        return matches_name(matcher, vbd->vdi->name);
    }
}

bool xv_selection_excludes_disk(const struct xv_selection *selection, const struct xv_vbd *vbd)
{
    for (size_t i = 0; i < selection->excluded_disks.count; i++) {
        if (matches_disk(&selection->excluded_disks.items[i], vbd))
            return true;
    }
    return false;
}

bool xv_vbd_is_disk(const struct xv_vbd *vbd)
{
    return vbd->vdi != NULL && strcmp(vbd->type, "Disk") == 0 && vbd->tag == NULL;
}

static json_t *disks_of(const struct xv_vm *vm)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < vm->vbd_count; i++) {
        const struct xv_vbd *vbd = vm->vbds[i];
        if (!xv_vbd_is_disk(vbd))
            continue;
        const struct xv_sr *sr = vbd->vdi->sr;
        json_array_append_new(
            disks, json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "device", xv_json_text(vbd->device),
                             "vdi", xv_json_text(vbd->vdi->uuid), "name",
                             xv_json_text(vbd->vdi->name), "size", xv_json_count(vbd->vdi->size),
                             "sr", sr == NULL ? json_null() : xv_json_named(sr->uuid, sr->name),
                             "cbt_enabled", vbd->vdi->cbt_enabled));
    }
    return disks;
}

json_t *xv_selection_to_json(const struct xv_vm *const *vms, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct xv_vm *vm = vms[i];
        const struct xv_host *host = vm->resident_on;
        json_t *tags = json_array();
        for (size_t j = 0; j < vm->tag_count; j++)
            json_array_append_new(tags, xv_json_text(vm->tags[j]));
        json_array_append_new(
            array,
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "uuid", xv_json_text(vm->uuid), "name",
                      xv_json_text(vm->name), "power_state", xv_json_text(vm->power_state), "host",
                      host == NULL ? json_null() : xv_json_named(host->uuid, host->name), "tags",
                      tags, "disks", disks_of(vm)));
    }
    return array;
}
