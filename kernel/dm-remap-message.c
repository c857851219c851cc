// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages and status.
 *
 * A message runs inside the section that a suspend waits for, so it never suspends
 * anything itself, and long ones end early when a suspend begins.
 */
#include "dm-remap.h"

#include <linux/uuid.h>

/* One call of a message. */
struct message {
	struct dm_remap_target *t;
	struct dm_remap_device *d;
	unsigned int argc;		/* arguments behind the word */
	char **argv;
	char *result;
	unsigned int maxlen;
};

/* ---- arguments ---- */

static int bad(const struct message *m, const char *what)
{
	DMERR("%s: %s", dm_device_name(m->d->dm), what);
	return -EINVAL;
}

static int parse_number(const struct message *m, unsigned int i, const char *name, u64 *value)
{
	if (!kstrtoull(m->argv[i], 10, value))
		return 0;
	DMERR("%s: %s: \"%s\" is not a number of sectors", dm_device_name(m->d->dm), name,
	      m->argv[i]);
	return -EINVAL;
}

/* "<sector> [<count>]"; the count is one logical block if it is left out. */
static int parse_range(const struct message *m, u64 *start, u64 *length)
{
	u64 size = m->t->ti->len;
	u32 g = m->d->metadata.sb.layout.granularity;

	*length = g;
	if (m->argc < 1 || m->argc > 2)
		return bad(m, "expected: <sector> [<count>]");
	if (parse_number(m, 0, "sector", start) ||
	    (m->argc == 2 && parse_number(m, 1, "count", length)))
		return -EINVAL;
	if (!*length)
		return bad(m, "count must not be 0");
	if (*start >= size || *length > size - *start) {
		DMERR("%s: sectors %llu + %llu lie beyond the end of the device, %llu",
		      dm_device_name(m->d->dm), *start, *length, size);
		return -EINVAL;
	}
	if ((*start | *length) & (g - 1)) {
		DMERR("%s: sector and count must be multiples of %u, the logical block of main",
		      dm_device_name(m->d->dm), g);
		return -EINVAL;
	}
	return 0;
}

/* Why a message failed: @why, unless there is no more to be done for the device at all. */
static const char *reason(const struct message *m, const char *why)
{
	return READ_ONCE(m->d->metadata.taken) ?
	       "another system uses the spare: remove the device here" : why;
}

/* Says in the log why a move failed, and how far it got. */
static int moved_result(const struct message *m, const char *word, int ret,
			const struct dm_remap_moved *moved)
{
	const char *why = moved->why;

	if (!ret)
		return 1;
	if (!why && ret == -EROFS)
		why = "the spare cannot be written; save tries again";
	else if (!why && ret == -ENOSPC)
		why = "the spare is full, or its table is; see status";
	else if (!why && ret == -EUCLEAN)
		why = "the record may be on the spare, or not; the range fails until save succeeds";
	else if (!why && (ret == -EAGAIN || ret == -EINTR))
		why = "stopped by a suspend, a removal or a signal";
	DMERR("%s: %s: %s (%d); sectors done: %llu moved, %llu pending, %llu refused",
	      dm_device_name(m->d->dm), word, reason(m, why ?: "failed"), ret, moved->moved,
	      moved->pending, moved->refused);
	return ret;
}

/* ---- messages ---- */

static int no_arguments(const struct message *m)
{
	return m->argc ? bad(m, "this message takes no argument") : 0;
}

static const char *not_saved(int error)
{
	switch (error) {
	case -ENOMEM:
		return "not enough memory";
	case -EAGAIN:
		return "stopped by a suspend or a removal";
	default:
		return "the spare cannot be written; it still serves";
	}
}

static int message_save(struct message *m)
{
	int ret = no_arguments(m);

	if (ret)
		return ret;
	ret = dm_remap_metadata_sync(m->d);
	if (ret == DM_REMAP_NO_ROOM_BENEATH)
		ret = -ENOSPC;
	if (ret) {
		DMERR("%s: save: %s (%d)", dm_device_name(m->d->dm), reason(m, not_saved(ret)),
		      ret);
		return ret;
	}
	scnprintf(m->result, m->maxlen, "generation=%llu", m->d->metadata.sb.generation);
	return 1;
}

static int message_restore(struct message *m)
{
	struct dm_remap_device *d = m->d;
	bool healed;
	int ret = no_arguments(m);

	if (ret)
		return ret;
	ret = dm_remap_restore(&d->metadata, bdev_nr_sectors(d->spare_bdev), &healed);
	dm_remap_device_event(d);
	if (ret) {
		const char *why = "not finished; try again";

		if (ret == -ENOMEM)
			why = "not enough memory to read the spare back";
		else if (ret == -EUCLEAN)
			why = "the spare holds something else; save writes it anew";
		DMERR("%s: restore: %s (%d)", dm_device_name(d->dm), reason(m, why), ret);
		return ret;
	}
	scnprintf(m->result, m->maxlen, "generation=%llu %s", d->metadata.sb.generation,
		  healed ? "healed" : "verified");
	return 1;
}

/* The three that move, or forget, a range. */
static int message_move(struct message *m, const char *word,
			int (*move)(struct dm_remap_metadata *md, u64 start, u64 length,
				    struct dm_remap_moved *moved),
			struct dm_remap_moved *moved)
{
	u64 start, length;
	int ret = parse_range(m, &start, &length);

	if (ret)
		return ret;
	ret = move(&m->d->metadata, start, length, moved);
	dm_remap_device_event(m->d);
	return moved_result(m, word, ret, moved);
}

static int message_remap(struct message *m)
{
	struct dm_remap_moved moved = { };
	int ret = message_move(m, "remap", dm_remap_remap, &moved);

	scnprintf(m->result, m->maxlen, "moved=%llu pending=%llu", moved.moved, moved.pending);
	return ret;
}

static int message_unremap(struct message *m)
{
	struct dm_remap_moved moved = { };
	int ret = message_move(m, "unremap", dm_remap_unremap, &moved);

	scnprintf(m->result, m->maxlen, "moved=%llu refused=%llu", moved.moved, moved.refused);
	return ret;
}

static int message_forget(struct message *m)
{
	struct dm_remap_moved moved = { };
	int ret = message_move(m, "forget", dm_remap_forget, &moved);

	scnprintf(m->result, m->maxlen, "dropped=%llu", moved.dropped);
	return ret;
}

/* One line of the list, or 0 if it does not fit. */
static unsigned int list_line(char *to, unsigned int room, const struct dm_remap_record *r)
{
	char spare[24] = "-";
	int n;

	if (r->kind == DM_REMAP_MAPPED)
		snprintf(spare, sizeof(spare), "%llu", r->spare);
	n = snprintf(to, room, "%llu %u %s %s %s %u%s\n", r->main, r->length,
		     dm_remap_kind_name(r->kind), spare, dm_remap_reason_name(r->reason),
		     r->first_time, r->flags & DM_REMAP_F_UNREADABLE ? " unreadable" : "");
	return n < room ? n : 0;
}

/* "list [<from> [<max>]]": as many whole lines as fit; the reader asks on behind the last. */
static int message_list(struct message *m)
{
	struct dm_remap_record r;
	u64 from = 0, max = U64_MAX;
	unsigned int used = 0, n;

	if (m->argc > 2)
		return bad(m, "expected: [<sector> [<number of records>]]");
	if ((m->argc > 0 && parse_number(m, 0, "sector", &from)) ||
	    (m->argc > 1 && parse_number(m, 1, "number of records", &max)))
		return -EINVAL;
	m->result[0] = '\0';
	while (max-- && dm_remap_table_next(&m->d->metadata.table, from, &r)) {
		/* A full buffer would make libdevmapper send the message once more. */
		n = m->maxlen < used + 2 ? 0 :
		    list_line(m->result + used, m->maxlen - used - 1, &r);
		if (!n)
			break;
		used += n;
		from = r.main + r.length;
	}
	m->result[used] = '\0';
	return 1;
}

static int message_reset_stats(struct message *m)
{
	unsigned int i;
	int ret = no_arguments(m);

	for (i = 0; !ret && i < DM_REMAP_NR_COUNTERS; i++)
		atomic64_set(&m->d->metadata.counter[i], 0);
	return ret;
}

static int message_reset_breaker(struct message *m)
{
	int ret = no_arguments(m);

	if (ret)
		return ret;
	dm_remap_breaker_reset(&m->d->metadata);
	dm_remap_watch_ends_if_idle(m->d);
	dm_remap_device_event(m->d);
	return 0;
}

#define SET_KEYS " read_retries, no_auto_remap, verify_spare_writes"

static int set_flag(struct message *m, bool *of_table, bool *of_device, const char *why)
{
	bool on;

	if (kstrtobool(m->argv[1], &on))
		return bad(m, why);
	*of_table = on;
	WRITE_ONCE(*of_device, on);
	return 0;
}

/* "set <key> <value>": what the table line can say, at run time and until the next load. */
static int message_set(struct message *m)
{
	struct dm_remap_policy *of_table = &m->t->features.policy;
	struct dm_remap_policy *of_device = &m->d->metadata.policy;
	unsigned int number;

	if (m->argc != 2)
		return bad(m, "expected: set <key> <value>, with one of" SET_KEYS);
	if (!strcmp(m->argv[0], "read_retries")) {
		if (kstrtouint(m->argv[1], 10, &number) || number > DM_REMAP_MAX_READ_RETRIES)
			return bad(m, "read_retries must be 0 to 100");
		of_table->read_retries = number;
		WRITE_ONCE(of_device->read_retries, number);
		return 0;
	}
	if (!strcmp(m->argv[0], "no_auto_remap"))
		return set_flag(m, &of_table->no_auto_remap, &of_device->no_auto_remap,
				"no_auto_remap must be 0 or 1");
	if (!strcmp(m->argv[0], "verify_spare_writes"))
		return set_flag(m, &of_table->verify_spare_writes, &of_device->verify_spare_writes,
				"verify_spare_writes must be 0 or 1");
	return bad(m, "unknown key; there are" SET_KEYS);
}

static const struct {
	const char *word;
	int (*run)(struct message *m);
} messages[] = {
	{ "save", message_save },
	{ "restore", message_restore },
	{ "remap", message_remap },
	{ "unremap", message_unremap },
	{ "forget", message_forget },
	{ "list", message_list },
	{ "reset_stats", message_reset_stats },
	{ "reset_breaker", message_reset_breaker },
	{ "set", message_set },
};

static int not_a_message(const struct message *m, const char *word)
{
	char known[128] = "";
	unsigned int i, used = 0;

	for (i = 0; i < ARRAY_SIZE(messages); i++)
		used += scnprintf(known + used, sizeof(known) - used, " %s", messages[i].word);
	DMERR("%s: unknown message \"%s\"; there are%s", dm_device_name(m->d->dm), word, known);
	return -EINVAL;
}

int dm_remap_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		     unsigned int maxlen)
{
	struct dm_remap_target *t = ti->private;
	struct message m = {
		.t = t, .d = t->device, .argc = argc - 1, .argv = argv + 1,
		.result = result, .maxlen = maxlen,
	};
	unsigned int i;

	if (dm_suspended(ti) || READ_ONCE(t->device->stop))
		return -EAGAIN;
	for (i = 0; i < ARRAY_SIZE(messages); i++)
		if (!strcmp(argv[0], messages[i].word))
			return messages[i].run(&m);
	return not_a_message(&m, argv[0]);
}

/* ---- status ---- */

static const char *state_name(const struct dm_remap_metadata *md)
{
	if (READ_ONCE(md->writing))
		return "WRITING";
	if (READ_ONCE(md->save_failed))
		return "ERROR";
	return dm_remap_dirty(md) ? "DIRTY" : "CLEAN";
}

static void status_info(struct dm_remap_target *t, char *result, unsigned int maxlen)
{
	struct dm_remap_metadata *md = &t->device->metadata;
	struct dm_remap_totals records, retired;
	unsigned int sz = 0, period = dm_remap_autosave_period(), i;
	u64 most;

	DMEMIT("%s %s", dm_remap_mode_name(READ_ONCE(md->mode)), state_name(md));
	/* A table that is to be formatted has nothing to tell before it runs. */
	if (!md->loaded)
		return;
	dm_remap_table_totals(&md->table, &records);
	dm_remap_table_totals(&md->retired, &retired);
	most = dm_remap_max_records(&md->sb.layout);
	DMEMIT(" generation=%llu records=%llu remapped=%llu pending=%llu", md->sb.generation,
	       records.records, records.mapped, records.pending);
	DMEMIT(" spare_free=%llu spare_total=%llu retired=%llu records_free=%llu",
	       dm_remap_alloc_free_sectors(&md->alloc), dm_remap_alloc_total_sectors(&md->alloc),
	       retired.retired, most - min(most, dm_remap_records(md)));
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		DMEMIT(" %s=%llu", dm_remap_counter_name(i),
		       (u64)atomic64_read(&md->counter[i]));
	DMEMIT(" journal_used=%llu journal_size=%u saves=%llu save_errors=%llu last_save=%llu",
	       dm_remap_journal_used(md), md->sb.layout.journal_blocks, READ_ONCE(md->saves),
	       READ_ONCE(md->save_errors), READ_ONCE(md->last_save));
	if (period)
		DMEMIT(" autosave=%u", period);
	else
		DMEMIT(" autosave=off");
	DMEMIT(" breaker=%s", dm_remap_breaker_open(md) ? "open" : "closed");
	DMEMIT(" witness=%llu:%llu", READ_ONCE(md->witness.generation),
	       READ_ONCE(md->witness.sequence));
	DMEMIT(" unreadable=%llu", records.unreadable);
	DMEMIT(" refusing=%s", dm_remap_refusal_name(READ_ONCE(md->refusal)));
}

static void current_uuid(const struct dm_remap_device *d, uuid_t *uuid)
{
	import_uuid(uuid, d->to_format ? d->format.uuid : d->metadata.sb.uuid);
}

static void status_table(struct dm_remap_target *t, char *result, unsigned int maxlen)
{
	const struct dm_remap_policy *policy = &t->features.policy;
	unsigned int sz = 0;
	unsigned int n = 2 + 2 * dm_remap_has_witness(t) + policy->no_auto_remap +
			 policy->verify_spare_writes +
			 2 * (policy->read_retries != DM_REMAP_DEFAULT_READ_RETRIES);
	uuid_t uuid;

	current_uuid(t->device, &uuid);
	DMEMIT("%s %llu %s %u uuid %pUb", t->main->name, (u64)t->device->main_start,
	       t->spare->name, n, &uuid);
	/* As it was given: it holds for good, and a line must not change by itself. */
	if (dm_remap_has_witness(t))
		DMEMIT(" witness %llu:%llu", t->features.witness.generation,
		       t->features.witness.sequence);
	if (policy->no_auto_remap)
		DMEMIT(" no_auto_remap");
	if (policy->verify_spare_writes)
		DMEMIT(" verify_spare_writes");
	if (policy->read_retries != DM_REMAP_DEFAULT_READ_RETRIES)
		DMEMIT(" read_retries %u", policy->read_retries);
}

static void status_ima(struct dm_target *ti, char *result, unsigned int maxlen)
{
	struct dm_remap_target *t = ti->private;
	unsigned int sz = 0;
	uuid_t uuid;

	current_uuid(t->device, &uuid);
	DMEMIT_TARGET_NAME_VERSION(ti->type);
	DMEMIT(",main_device_name=%s,main_start=%llu,spare_device_name=%s,uuid=%pUb",
	       t->main->name, (u64)t->device->main_start, t->spare->name, &uuid);
	DMEMIT(",no_auto_remap=%c,read_retries=%u,witness=%llu:%llu,verify_spare_writes=%c;",
	       t->features.policy.no_auto_remap ? 'y' : 'n', t->features.policy.read_retries,
	       t->features.witness.generation, t->features.witness.sequence,
	       t->features.policy.verify_spare_writes ? 'y' : 'n');
}

void dm_remap_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		     char *result, unsigned int maxlen)
{
	struct dm_remap_target *t = ti->private;

	switch (type) {
	case STATUSTYPE_INFO:
		status_info(t, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		status_table(t, result, maxlen);
		break;
	case STATUSTYPE_IMA:
		status_ima(ti, result, maxlen);
		break;
	}
}
