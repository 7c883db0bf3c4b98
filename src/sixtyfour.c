/*-------------------------------------------------------------------------
 *
 * sixtyfour.c
 *		Loads the modules in order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "ask.h"
#include "board.h"
#include "detour.h"
#include "doorbell.h"
#include "feed.h"
#include "guc.h"
#include "launcher.h"
#include "meter.h"
#include "place.h"
#include "price.h"
#include "utility.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	s64_guc_init();
	s64_meter_init();
	s64_price_init();
	s64_place_init();
	s64_ask_init();
	s64_doorbell_init();
	s64_board_init();
	s64_detour_init();
	s64_utility_init();
	s64_launcher_init();
	s64_feed_init();
}
