# prepare.sh: sourced by the scripts of make demo, test, bench and valgrind.
#
# Installs the packages that are missing (as root or with sudo; otherwise says
# which), copies the source tree to a build folder of its own, builds it there
# and installs it below that folder.  Nothing is written to the system's
# directories or to the source tree.
#
#	prepare			sets BUILD, INST, PGBIN, PG_CONFIG
#	as_postgres		runs a command as a user that PostgreSQL accepts
#	server_settings prints the settings with which a cluster finds the build

PG_MAJOR=${PG_MAJOR:-15}
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=/usr/bin/python3			# Debian's, which sees Debian's modules
export PYTHON

say() { printf '%s\n' "$*" >&2; }

# What has to be there, as "file package"
needs() {
	cat <<-TXT
	/usr/bin/make make
	/usr/bin/gcc gcc
	/usr/bin/pkg-config pkg-config
	/usr/lib/postgresql/$PG_MAJOR/bin/postgres postgresql-$PG_MAJOR
	/usr/include/postgresql/$PG_MAJOR/server/postgres.h postgresql-server-dev-$PG_MAJOR
	/usr/lib/x86_64-linux-gnu/pkgconfig/libcurl.pc libcurl4-openssl-dev
	/usr/bin/prove perl
	/usr/share/perl5/IPC/Run.pm libipc-run-perl
	/usr/lib/python3/dist-packages/aiohttp python3-aiohttp
	/usr/bin/openssl openssl
	TXT
}

missing_packages() {
	local file package
	while read -r file package; do
		[ -e "${file/x86_64-linux-gnu/$(gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)}" ] ||
			echo "$package"
	done < <(needs; for extra in "$@"; do echo "$extra"; done) | sort -u | tr '\n' ' '
}

# install_packages ["file package" …]: those that are missing
install_packages() {
	local list root=
	list=$(missing_packages "$@")
	[ -n "$list" ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			say "These packages are missing. Install them, then run this again:"
			say "  apt-get install --no-install-recommends $list"
			exit 1
		fi
		root=sudo
	fi
	say "Installing from Debian: $list"
	# nothing that is installed here shall start: no cluster is made, and no
	# service started; what is put there for that goes again
	local log
	log=$(mktemp)
	$root env DEBIAN_FRONTEND=noninteractive bash -c '
		policy=/usr/sbin/policy-rc.d
		cluster=/etc/postgresql-common/createcluster.conf
		made=
		trap "rm -f \$made" EXIT
		if [ ! -e $policy ]; then
			printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
			made="$made $policy"
		fi
		if [ ! -e $cluster ]; then
			mkdir -p /etc/postgresql-common
			echo "create_main_cluster = false" >$cluster
			made="$made $cluster"
		fi
		apt-get update -qq &&
		apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends '"$list" \
		>"$log" 2>&1 || {
		cat "$log" >&2
		exit 1
	}
	rm -f "$log"
}

# PostgreSQL refuses to run as root
as_postgres() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

server_settings() {
	cat <<-TXT
	shared_preload_libraries = 'sixtyfour'
	dynamic_library_path = '$INST$($PG_CONFIG --pkglibdir):\$libdir'
	TXT
	if [ "$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 18 ]; then
		echo "extension_control_path = '$INST$($PG_CONFIG --sharedir):\$system'"
	else
		echo "extension_destdir = '$INST'"
	fi
}

# prepare ["file package" …]
prepare() {
	install_packages "$@"
	BUILD=$(mktemp -d "${TMPDIR:-/tmp}/sixtyfour.XXXXXX")
	INST=$BUILD/inst
	PGBIN=$("$PG_CONFIG" --bindir)
	trap 'rm -rf "$BUILD"' EXIT
	(cd "$SOURCE" && tar cf - --exclude=.git --exclude='*.o' --exclude='*.bc' \
		--exclude='*.so' --exclude=__pycache__ .) | tar xf - -C "$BUILD"
	local log=$BUILD/build.log
	make -C "$BUILD" PG_CONFIG="$PG_CONFIG" with_llvm=no -j2 >"$log" 2>&1 &&
		make -C "$BUILD" PG_CONFIG="$PG_CONFIG" with_llvm=no install DESTDIR="$INST" >>"$log" 2>&1 || {
		cat "$log" >&2
		exit 1
	}
	[ "$(id -u)" -ne 0 ] || chown -R postgres: "$BUILD"
}
