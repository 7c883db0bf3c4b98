# build_server.sh: sourced by run.
#
#	server_for_valgrind DIR		puts PostgreSQL, built for valgrind, into DIR,
#								which is there and empty
#
# Debian's source of the installed major version is built with assertions and
# with USE_VALGRIND, which tells valgrind of palloc'd chunks, so that a byte
# too many in one is seen.  That takes minutes, so the result is kept below
# ${XDG_CACHE_HOME:-~/.cache}/sixtyfour, one archive per version.
#
# "pgsql" has to be part of the prefix: Debian's source would otherwise install
# over the packaged server's directories.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sixtyfour
SERVER_PREFIX=/usr/local/pgsql-valgrind	# nothing is put there, DESTDIR is set

# An apt of its own, whose sources are those of this machine's Debian packages
private_apt() {
	local dir=$1
	local list='$(REPO_URI) $(RELEASE) $(COMPONENT)'
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	[ "$(id -u)" -ne 0 ] || apt-get -qq update
	apt-get indextargets --format "$list" 'Created-By: Packages' 'Origin: Debian' |
		sort -u | sed "s/^/deb-src /" >"$dir/sources.list"
	[ -s "$dir/sources.list" ] || {
		say "No Debian archive is known on this machine: run \"apt-get update\" first."
		return 1
	}
	cat >"$dir/apt.conf" <<-TXT
	Dir::Etc::sourcelist "$dir/sources.list";
	Dir::Etc::sourceparts "/dev/null";
	Dir::State::lists "$dir/lists";
	Dir::Cache "$dir/cache";
	APT::Sandbox::User "root";
	TXT
	export APT_CONFIG=$dir/apt.conf
	apt-get -qq update
}

# Fetch and unpack the newest version that can be had, as $1/src; an archive
# may list versions that it no longer holds.
fetch_source() {
	local dir=$1 version
	for version in $(apt-cache showsrc "postgresql-$PG_MAJOR" |
		sed -n 's/^Version: //p' | sort -Vru); do
		(cd "$dir" && apt-get -qq source --download-only "postgresql-$PG_MAJOR=$version") \
			>>"$dir/log" 2>&1 || continue
		dpkg-source --no-check -x "$dir"/*.dsc "$dir/src" >/dev/null
		return
	done
	cat "$dir/log" >&2
	say "No source of postgresql-$PG_MAJOR could be fetched."
	return 1
}

# Build what is in $1/src into the archive $2.
build_source() {
	local dir=$1 archive=$2
	env -u MAKEFLAGS -u MAKELEVEL bash -euo pipefail -c '
		cd "$1/src"
		./configure --prefix="$2" --enable-cassert --enable-debug --enable-tap-tests \
			--with-openssl --without-readline --without-zlib \
			CFLAGS="-O1 -fno-omit-frame-pointer" CPPFLAGS=-DUSE_VALGRIND
		make -s -j2
		make -s install DESTDIR="$1/stage"
		cp src/tools/valgrind.supp "$1/stage$2/"
	' build "$dir" "$SERVER_PREFIX" >"$dir/log" 2>&1 </dev/null || {
		tail -30 "$dir/log" >&2
		return 1
	}
	mkdir -p "$CACHE"
	rm -f "$CACHE/pgsql-valgrind-$PG_MAJOR".*
	tar cf "$archive.new" -C "$dir/stage$SERVER_PREFIX" .
	mv "$archive.new" "$archive"
}

server_for_valgrind() {
	local into=$1 archive
	archive=$CACHE/pgsql-valgrind-$(server_version).tar
	if [ ! -e "$archive" ]; then
		say "Building PostgreSQL $PG_MAJOR for valgrind, once: some minutes."
		(
			private_apt "$into/source/apt" && fetch_source "$into/source" &&
				build_source "$into/source" "$archive"
		) || return 1
		rm -rf "$into/source"
	fi
	tar xf "$archive" -C "$into"
}

# The installed server's version: headers of another minor version would do,
# but after an upgrade a newer source may be there.
server_version() {
	"$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/'
}
