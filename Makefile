# sixtyfour: enrich rows where they live
#
#	make demo	throw-away cluster, the main job on 240 companies
#	make test	regression and TAP tests on a private cluster
#	make, make install, make bench: see CONTRIBUTING.md
#
# demo and test need nothing installed beforehand; the rest is plain PGXS.

EXTENSION = sixtyfour
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big = sixtyfour
PGFILEDESC = "sixtyfour - enrich rows from the Sixtyfour service"
DATA = $(wildcard $(EXTENSION)--*.sql)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CPPFLAGS = $(shell pkg-config --cflags libcurl 2>/dev/null) -DS64_VERSION='"$(EXTVERSION)"' \
	-DPGDLLEXPORT='__attribute__((visibility("default")))'
PG_CFLAGS = -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter $(WERROR)
SHLIB_LINK = $(shell pkg-config --libs libcurl 2>/dev/null || echo -lcurl)

# "make WERROR=" builds with a compiler that warns about more
WERROR = -Werror

PG_CONFIG = pg_config
# both: the server's headers come in a package of their own
SERVER_H := $(wildcard $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h)
PGXS := $(if $(SERVER_H),$(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null)))

.PHONY: demo test bench valgrind chaos need-pgxs

ifneq ($(PGXS),)
include $(PGXS)
else
all install: need-pgxs
need-pgxs:
	@echo "The PostgreSQL server headers for $(PG_CONFIG) are missing; on Debian:" >&2
	@echo "  apt-get install postgresql-server-dev-15 libcurl4-openssl-dev pkg-config" >&2
	@exit 1
endif

# these know the version
VERSIONED = $(basename $(shell grep -l S64_VERSION src/*.c))
$(VERSIONED:=.o) $(VERSIONED:=.bc): $(EXTENSION).control

demo:
	@test/demo/run

test:
	@test/run

bench:
	@test/bench/run

valgrind:
	@test/valgrind/run

# the tests of faults, for longer: ten times the faults, and more of the model
chaos:
	@SIXTYFOUR_FAULTS=$${SIXTYFOUR_FAULTS:-10000} SIXTYFOUR_DEEP=1 test/run test/t/050_chaos.pl test/t/051_model.pl
