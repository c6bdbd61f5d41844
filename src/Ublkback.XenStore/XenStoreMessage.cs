namespace Ublkback.XenStore;

/// <summary>Types of xenstore messages (xen/io/xs_wire.h, enum xsd_sockmsg_type).</summary>
public enum XenStoreMessageType : uint
{
    /// <summary>A debugging command to the store.</summary>
    Control = 0,

    /// <summary>Names of a node's children.</summary>
    Directory = 1,

    /// <summary>Value of a node.</summary>
    Read = 2,

    /// <summary>Permissions of a node.</summary>
    GetPermissions = 3,

    /// <summary>Asks for an event when a path changes.</summary>
    Watch = 4,

    /// <summary>Ends a watch.</summary>
    Unwatch = 5,

    /// <summary>Begins a transaction.</summary>
    TransactionStart = 6,

    /// <summary>Ends a transaction: "T" commits, "F" aborts.</summary>
    TransactionEnd = 7,

    /// <summary>Tells the store of a new domain.</summary>
    Introduce = 8,

    /// <summary>Tells the store that a domain is gone.</summary>
    Release = 9,

    /// <summary>Home path of a domain.</summary>
    GetDomainPath = 10,

    /// <summary>Sets the value of a node.</summary>
    Write = 11,

    /// <summary>Makes a node with an empty value if it does not exist.</summary>
    MakeDirectory = 12,

    /// <summary>Removes a node and all below it.</summary>
    Remove = 13,

    /// <summary>Sets the permissions of a node.</summary>
    SetPermissions = 14,

    /// <summary>From the store: a watched path changed.</summary>
    WatchEvent = 15,

    /// <summary>From the store: the request failed; the payload names the error.</summary>
    Error = 16,

    /// <summary>Whether the store knows a domain.</summary>
    IsDomainIntroduced = 17,

    /// <summary>Removes all watches of a connection.</summary>
    ResetWatches = 21,

    /// <summary>Names of a node's children in parts, for long lists.</summary>
    DirectoryPart = 22,
}

/// <summary>The 16 bytes before each payload (struct xsd_sockmsg): four little-endian words.</summary>
/// <param name="Type">Kind of message.</param>
/// <param name="RequestId">Chosen by the client, echoed by the store.</param>
/// <param name="Transaction">0 outside transactions.</param>
/// <param name="Length">Bytes of payload, at most <see cref="MaxPayload"/>.</param>
public readonly record struct XenStoreHeader(XenStoreMessageType Type, uint RequestId, uint Transaction, int Length)
{
    /// <summary>Bytes of a header.</summary>
    public const int Size = 16;

    /// <summary>Most bytes of payload (XENSTORE_PAYLOAD_MAX).</summary>
    public const int MaxPayload = 4096;

    /// <summary>Most bytes of an absolute path (XENSTORE_ABS_PATH_MAX).</summary>
    public const int MaxAbsolutePath = 3072;
}

/// <summary>A whole message.</summary>
/// <param name="Header">Its header.</param>
/// <param name="Payload">Its payload.</param>
public readonly record struct XenStoreMessage(XenStoreHeader Header, byte[] Payload);
