// SPDX-License-Identifier: GPL-2.0-only
/*
 * By what a main device is known, and whether it is the one that a spare was made for.
 *
 * A disk has an id of its own. A device that device-mapper made has its DM UUID; the id of the
 * disk below is that of its neighbours, too. So it can tell that a device is another one, and
 * never that it is the right one.
 */
#include "dm-remap-internal.h"

/* ---- by what it is known ---- */

#define CRYPT_PREFIX "CRYPT-"
#define UUID_DIGITS 32

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/*
 * An encrypted device is called CRYPT-<type>-<UUID>-<name>, and the name is new each time it is
 * opened. Types without a UUID (PLAIN, INTEGRITY) have nothing but the name.
 */
static size_t crypt_uuid_length(const char *uuid)
{
	const char *at = strchr(uuid + strlen(CRYPT_PREFIX), '-');
	unsigned int digits = 0;

	if (!at)
		return 0;
	for (at++; is_hex(at[digits]); digits++)
		;
	if (digits != UUID_DIGITS || (at[digits] && at[digits] != '-'))
		return 0;
	return at + digits - uuid;
}

size_t dm_remap_dm_uuid_length(const char *uuid)
{
	if (!strncmp(uuid, CRYPT_PREFIX, strlen(CRYPT_PREFIX)))
		return crypt_uuid_length(uuid);
	return strlen(uuid);
}

/*
 * FNV-1a of 128 bits, little-endian. It starts with its offset basis. After each byte it multiplies
 * by its prime, 2^88 + 0x13b. DM UUIDs are no secrets, they need only differ.
 */
static void hash(u8 *result, const char *text, size_t length)
{
	static const u8 basis[DM_REMAP_MAIN_ID_SIZE] = {
		0x8d, 0xc5, 0x95, 0x62, 0x75, 0x21, 0xb8, 0x62,
		0x42, 0x01, 0xbb, 0x07, 0x2e, 0x27, 0x62, 0x6c,
	};
	u8 h[DM_REMAP_MAIN_ID_SIZE];
	unsigned int i;
	u32 sum;

	memcpy(result, basis, sizeof(basis));
	for (; length; length--, text++) {
		memcpy(h, result, sizeof(h));
		h[0] ^= (u8)*text;
		for (sum = 0, i = 0; i < sizeof(h); i++, sum >>= 8) {
			sum += h[i] * 0x13bu + (i >= 11 ? h[i - 11] : 0);
			result[i] = (u8)sum;
		}
	}
}

void dm_remap_main_identify(struct dm_remap_main *main, const char *dm_uuid)
{
	struct dm_remap_main_id *id = &main->id;
	size_t length = dm_uuid ? dm_remap_dm_uuid_length(dm_uuid) : 0;
	size_t whole = dm_uuid ? length ?: strlen(dm_uuid) : 0;
	size_t tail = min_t(size_t, whole, sizeof(id->name) - 1);

	main->mapped = dm_uuid;
	memset(id->name, 0, sizeof(id->name));
	if (tail)
		memcpy(id->name, dm_uuid + whole - tail, tail);
	if (length) {
		id->id_type = DM_REMAP_MAIN_ID_DM_UUID;
		hash(id->id, dm_uuid, length);
		return;
	}
	id->id_type = main->disk_type;
	if (main->mapped && main->disk_type)
		id->id_type |= DM_REMAP_MAIN_ID_BELOW;
	memcpy(id->id, main->disk_id, sizeof(id->id));
}

/* ---- is it the right one? ---- */

enum proof {
	PROVED,			/* it is the one that the spare knows */
	DISPROVED,
	OPEN,			/* there is nothing to go by but size and place */
};

static enum proof prove_by_disk(const struct dm_remap_main_id *known,
				const struct dm_remap_main *main)
{
	bool below = known->id_type & DM_REMAP_MAIN_ID_BELOW;
	u8 type = known->id_type & ~DM_REMAP_MAIN_ID_BELOW;

	if (below && !main->mapped)
		return DISPROVED;
	if (!main->disk_type)
		return OPEN;
	if (type != main->disk_type || memcmp(known->id, main->disk_id, sizeof(known->id)) ||
	    known->partition != main->id.partition)
		return DISPROVED;
	return main->mapped ? OPEN : PROVED;
}

static enum proof prove(const struct dm_remap_main_id *known, const struct dm_remap_main *main)
{
	if (!known->id_type)
		return OPEN;
	if (known->id_type != DM_REMAP_MAIN_ID_DM_UUID)
		return prove_by_disk(known, main);
	if (main->id.id_type != DM_REMAP_MAIN_ID_DM_UUID)
		return main->mapped ? OPEN : DISPROVED;
	return memcmp(known->id, main->id.id, sizeof(known->id)) ? DISPROVED : PROVED;
}

static const char *wrong_main(const struct dm_remap_main_id *known,
			      const struct dm_remap_main *main)
{
	enum proof proof = prove(known, main);

	if (proof == DISPROVED)
		return "spare belongs to another main device";
	if (proof == PROVED)
		return NULL;
	/* A device that device-mapper made may be a partition that it has made anew. */
	if (known->partition != main->id.partition && !main->mapped)
		return "spare was made for a main device that begins elsewhere on its disk";
	if (known->sectors != main->id.sectors)
		return "spare was made for a main device of another size; is it the right one?";
	return NULL;
}

#define ANOTHER_BLOCK_SIZE \
	"spare was formatted for another logical block size of main: use the adapter from before, or one that shows that size"

int dm_remap_check_main(const struct dm_remap_metadata *md, const struct dm_remap_main *main,
			struct dm_remap_report *report)
{
	const struct dm_remap_main_id *known = &md->sb.main;

	report->refusal = NULL;
	if (md->sb.layout.granularity != main->granularity)
		report->refusal = ANOTHER_BLOCK_SIZE;
	else if (known->start != main->id.start)
		report->refusal = "spare was made for another start sector on the main device";
	else if (!main->rebind)
		report->refusal = wrong_main(known, main);
	return report->refusal ? -ENODEV : 0;
}

/* ---- what the spare is to know from now on ---- */

/* Nothing but the word rebind says that @main is the one that the spare knows as @known. */
static bool bound_anew(const struct dm_remap_main_id *known, const struct dm_remap_main *main)
{
	return main->rebind && wrong_main(known, main);
}

struct dm_remap_main_id dm_remap_main_to_record(const struct dm_remap_metadata *md,
						const struct dm_remap_main *main)
{
	struct dm_remap_main_id id = main->id;

	if (!id.name[0] && !bound_anew(&md->sb.main, main))
		memcpy(id.name, md->sb.main.name, sizeof(id.name));
	return id;
}

static const char *known_by(const struct dm_remap_main_id *id)
{
	if (id->id_type == DM_REMAP_MAIN_ID_DM_UUID)
		return "its DM UUID";
	if (id->id_type & DM_REMAP_MAIN_ID_BELOW)
		return "its size and the id of the disk below";
	return id->id_type ? "the id of its disk" : "its size";
}

void dm_remap_main_tell(struct dm_remap_metadata *md, const struct dm_remap_main *main,
			const struct dm_remap_main_id *before)
{
	const struct dm_remap_main_id *now = &md->sb.main;

	if (now->id_type == before->id_type && !memcmp(now->id, before->id, sizeof(now->id)) &&
	    !bound_anew(before, main))
		return;
	dm_remap_log(md, DM_REMAP_LOG_INFO,
		     "the spare knows main by %s from now on (%s), until now by %s (%s)",
		     known_by(now), now->name[0] ? now->name : "no name", known_by(before),
		     before->name[0] ? before->name : "no name");
}
