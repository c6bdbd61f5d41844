namespace Ublkback.XenStore;

/// <summary>
/// Why the store refused a request; the names are those of the wire protocol (xs_wire.h, xsd_errors).
/// </summary>
public enum XenStoreError
{
    /// <summary>An error that the store names but this client does not know.</summary>
    Other,

    /// <summary>EINVAL.</summary>
    Invalid,

    /// <summary>EACCES.</summary>
    Access,

    /// <summary>EEXIST.</summary>
    Exists,

    /// <summary>EISDIR.</summary>
    IsDirectory,

    /// <summary>ENOENT.</summary>
    NoEntry,

    /// <summary>ENOMEM.</summary>
    NoMemory,

    /// <summary>ENOSPC: a quota is used up.</summary>
    NoSpace,

    /// <summary>EIO.</summary>
    Io,

    /// <summary>ENOTEMPTY.</summary>
    NotEmpty,

    /// <summary>ENOSYS.</summary>
    NotSupported,

    /// <summary>EROFS.</summary>
    ReadOnly,

    /// <summary>EBUSY.</summary>
    Busy,

    /// <summary>EAGAIN: the transaction met another and must be tried again.</summary>
    Again,

    /// <summary>EISCONN.</summary>
    Connected,

    /// <summary>E2BIG: more than the protocol carries.</summary>
    TooBig,

    /// <summary>EPERM.</summary>
    NotPermitted,

    /// <summary>The connection to the store was lost, or there is none.</summary>
    Disconnected,
}

/// <summary>A request to the store that failed.</summary>
public sealed class XenStoreException(XenStoreError error, string action, Exception? cause = null)
    : IOException($"xenstore: {action}: {Describe(error)}", cause)
{
    private static readonly (string Name, XenStoreError Error)[] WireNames =
    [
        ("EINVAL", XenStoreError.Invalid), ("EACCES", XenStoreError.Access), ("EEXIST", XenStoreError.Exists),
        ("EISDIR", XenStoreError.IsDirectory), ("ENOENT", XenStoreError.NoEntry), ("ENOMEM", XenStoreError.NoMemory),
        ("ENOSPC", XenStoreError.NoSpace), ("EIO", XenStoreError.Io), ("ENOTEMPTY", XenStoreError.NotEmpty),
        ("ENOSYS", XenStoreError.NotSupported), ("EROFS", XenStoreError.ReadOnly), ("EBUSY", XenStoreError.Busy),
        ("EAGAIN", XenStoreError.Again), ("EISCONN", XenStoreError.Connected), ("E2BIG", XenStoreError.TooBig),
        ("EPERM", XenStoreError.NotPermitted),
    ];

    /// <summary>Why.</summary>
    public XenStoreError Error { get; } = error;

    /// <summary>The error that a name on the wire stands for.</summary>
    public static XenStoreError FromWire(string name) =>
        Array.Find(WireNames, entry => entry.Name == name).Error;

    /// <summary>The name on the wire of an error.</summary>
    public static string ToWire(XenStoreError error) =>
        Array.Find(WireNames, entry => entry.Error == error).Name ?? "EINVAL";

    private static string Describe(XenStoreError error) => error switch
    {
        XenStoreError.Disconnected => "no connection to the store",
        XenStoreError.NoEntry => "no such node",
        XenStoreError.Access or XenStoreError.NotPermitted => "permission denied",
        XenStoreError.NoSpace => "a quota is used up",
        _ => ToWire(error),
    };
}
