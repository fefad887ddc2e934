//! Names of error numbers.

use std::borrow::Cow;

/// Declares the table from names: the numbers differ between architectures, so libc gives them.
macro_rules! names {
    ($($name:ident)*) => {
        static NAMES: [&str; 256] = {
            let mut names = [""; 256];
            $(
                assert!(names[libc::$name as usize].is_empty(), "two names for one number");
                names[libc::$name as usize] = stringify!($name);
            )*
            names
        };
    };
}

// Everything of errno(3) that a socket call or a security module in its way can give, and the
// rest of the first 133, so that a number is the exception. Aliases (EWOULDBLOCK, EDEADLOCK) left out.
names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR
    EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK
    EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC
    ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ
    EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET
    ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH
    EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM
    EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE
    ERFKILL EHWPOISON
}

/// Name of an errno, `EADDRINUSE` and so on; the number as text when Linux has no name for it.
pub fn name(errno: u16) -> Cow<'static, str> {
    match NAMES.get(usize::from(errno)) {
        Some(name) if !name.is_empty() => Cow::Borrowed(name),
        _ => Cow::Owned(errno.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_a_socket_call_has_its_name() {
        for (number, expected) in [
            (libc::EADDRINUSE, "EADDRINUSE"),
            (libc::EACCES, "EACCES"),
            (libc::ECONNREFUSED, "ECONNREFUSED"),
            (libc::ETIMEDOUT, "ETIMEDOUT"),
            (libc::EINPROGRESS, "EINPROGRESS"),
            (libc::ECANCELED, "ECANCELED"),
            (libc::ENETUNREACH, "ENETUNREACH"),
        ] {
            assert_eq!(name(number as u16), expected);
        }
    }

    #[test]
    fn a_number_without_a_name_stays_a_number() {
        assert_eq!(name(0), "0");
        assert_eq!(name(512), "512");
    }
}
