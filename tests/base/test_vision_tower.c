// Where a vision tower is found: a folder inside the model's, one elsewhere, or the table of hub ids.
#include "base/vision_tower.h"
#include "tests/base/support.h"

static void make_tower(void **state, const char *name) {
    char path[VL_PATH_MAX];
    assert_ok(vl_make_folders(scratch(state, name)));
    assert_ok(vl_path_join(path, scratch(state, name), "config.json"));
    put_file(path, "{}", 2);
}

static void folders(void **state) {
    VlTowerPlace place;
    make_tower(state, "model/tower");
    make_tower(state, "elsewhere");
    assert_ok(vl_tower_find(&place, scratch(state, "model"), "config.json", "tower"));
    assert_null(place.hub);
    assert_string_equal(place.folder, scratch(state, "model/tower"));
    assert_ok(vl_tower_find(&place, scratch(state, "model"), "config.json", scratch(state, "elsewhere")));
    assert_string_equal(place.folder, scratch(state, "elsewhere"));
}

static void hub_ids(void **state) {
    static const struct {
        const char *id, *type;
        int64_t hidden, layers, side;
    } towers[] = {{"openai/clip-vit-large-patch14-336", "clip_vision_model", 1024, 24, 336},
                  {"openai/clip-vit-large-patch14", "clip_vision_model", 1024, 24, 224},
                  {"google/siglip-so400m-patch14-384", "siglip_vision_model", 1152, 27, 384}};
    for (int i = 0; i < 3; i++) {
        VlTowerPlace place;
        assert_ok(vl_tower_find(&place, scratch(state, "model"), "config.json", towers[i].id));
        assert_string_equal(place.folder, "");
        assert_string_equal(place.hub->model_type, towers[i].type);
        assert_true(place.hub->hidden == towers[i].hidden && place.hub->layers == towers[i].layers);
        assert_int_equal(place.hub->image_size, towers[i].side);
    }
    // A folder of that name comes first.
    VlTowerPlace place;
    make_tower(state, "model/google/siglip-so400m-patch14-384");
    assert_ok(vl_tower_find(&place, scratch(state, "model"), "config.json", towers[2].id));
    assert_null(place.hub);
}

static void nowhere(void **state) {
    VlTowerPlace place;
    assert_ok(vl_make_folders(scratch(state, "model/empty")));
    assert_error(vl_tower_find(&place, scratch(state, "model"), "M/config.json", "empty"), VL_INVALID, "model/empty");
    assert_error(vl_tower_find(&place, scratch(state, "model"), "M/config.json", "openai/clip"), VL_INVALID,
                 "M/config.json: mm_vision_tower 'openai/clip'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(hub_ids, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(nowhere, make_scratch, remove_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
