/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/inventory.h"

#include <jansson.h>

#include "inventory_pool.h"

START_TEST(objects_and_links)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_str_eq(all->pool_uuid, "pool-1");
    ck_assert_str_eq(all->default_sr, "s1");
    ck_assert(all->cbt_licensed);
    ck_assert_int_eq(all->api_minor, 21);
    const struct xv_host *first = xv_inventory_host(all, "host-1");
    const struct xv_host *second = xv_inventory_host(all, "h2");
    const struct xv_sr *store = xv_inventory_sr(all, "sr-1");
    ck_assert(first->coordinator && first->live && first->enabled);
    ck_assert(!second->coordinator && !second->live && !second->enabled);
    ck_assert(store->supports_cbt);
    ck_assert(!xv_inventory_sr(all, "s2")->supports_cbt);
    ck_assert_uint_eq(store->physical_used, 0);
    ck_assert(xv_inventory_reaches(all, first, store));
    ck_assert(!xv_inventory_reaches(all, second, store));
    ck_assert(xv_inventory_network(all, "n1")->nbd);
    const struct xv_vm *vm = xv_inventory_vm(all, "vm-1");
    ck_assert_ptr_eq(vm, xv_inventory_vm(all, "g1"));
    ck_assert_uint_eq(vm->vbd_count, 2);
    ck_assert_uint_eq(vm->vif_count, 1);
    ck_assert_uint_eq(vm->tag_count, 2);
    ck_assert_str_eq(vm->tags[1], "b");
    ck_assert_ptr_eq(vm->resident_on, first);
    ck_assert_str_eq(xv_inventory_vdi(all, "vdi-1")->tag, "tag");
    ck_assert_ptr_null(xv_inventory_vm(all, "vm-3"));
    ck_assert_ptr_null(xv_inventory_vm(all, ""));
    ck_assert_ptr_null(xv_inventory_vm(all, "vdi-1"));
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(dangling_references)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_ptr_null(xv_inventory_vdi(all, "v2")->sr);
    ck_assert_uint_eq(xv_inventory_vdi(all, "v2")->size, 0);
    ck_assert_uint_eq(all->vbd_count, 3);
    size_t without_vm = 0;
    for (size_t i = 0; i < all->vbd_count; i++)
        without_vm += all->vbds[i].vm == NULL;
    ck_assert_uint_eq(without_vm, 1);
    ck_assert_ptr_null(xv_inventory_vm(all, "g2")->vifs[0]->network);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(document)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    json_t *json = xv_inventory_to_json(all);
    ck_assert_ptr_nonnull(json);
    const json_t *vms = json_object_get(json, "vms");
    ck_assert_uint_eq(json_array_size(vms), 1);
    const json_t *vm = json_array_get(vms, 0);
    ck_assert_uint_eq(json_array_size(json_object_get(vm, "disks")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(vm, "host")), "host-1");
    const json_t *sr = json_array_get(json_object_get(json, "srs"), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(sr, "hosts")), 1);
    json_decref(json);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(lost_connection_begins_anew)
{
    struct pool pool = sample;
    pool.cut = 1;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_uint_eq(all->vdi_count, 2);
    xv_inventory_free(all);
    atomic_store(&pool.cut, 1000);
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_fails(xv_inventory_read(client, &call, &all, &error), XVSA_ERR_NETWORK, error);
    disconnect(&pool, client);
}
END_TEST

START_TEST(broken_records_are_read_singly)
{
    struct pool pool = sample;
    pool.broken = "VM";
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_uint_eq(all->vm_count, 2);
    ck_assert_str_eq(xv_inventory_vm(all, "vm-1")->name, "web");
    ck_assert_uint_eq(all->omission_count, 0);
    xv_inventory_free(all);
    /* What is not there is told. */
    pool.lost = "g2";
    all = read_from(client);
    ck_assert_uint_eq(all->vm_count, 1);
    ck_assert_uint_eq(all->omission_count, 1);
    ck_assert_str_eq(all->omissions[0].class_name, "VM");
    ck_assert_str_eq(all->omissions[0].ref, "g2");
    json_t *json = xv_inventory_to_json(all);
    const json_t *omission = json_array_get(json_object_get(json, "omissions"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(omission, "class")), "VM");
    ck_assert_str_eq(json_string_value(json_object_get(omission, "ref")), "g2");
    json_decref(json);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(old_servers)
{
    struct pool pool = sample;
    pool.unknown = "SM";
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert(!xv_inventory_sr(all, "sr-1")->supports_cbt);
    xv_inventory_free(all);
    pool.unknown = "PBD";
    xvsa_error *error = NULL;
    ck_fails(xv_inventory_read(client, NULL, &all, &error), XVSA_ERR_UNSUPPORTED, error);
    disconnect(&pool, client);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("inventory");
    tcase_set_timeout(all, 90);
    tcase_add_test(all, objects_and_links);
    tcase_add_test(all, dangling_references);
    tcase_add_test(all, document);
    tcase_add_test(all, lost_connection_begins_anew);
    tcase_add_test(all, broken_records_are_read_singly);
    tcase_add_test(all, old_servers);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("inventory")
