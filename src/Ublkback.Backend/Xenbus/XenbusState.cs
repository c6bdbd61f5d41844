namespace Ublkback.Backend.Xenbus;

/// <summary>States of a xenbus device (xen/io/xenbus.h).</summary>
public enum XenbusState
{
    /// <summary>No state at all: a node with something else in it.</summary>
    Unknown = 0,

    /// <summary>Being set up.</summary>
    Initialising = 1,

    /// <summary>The backend waits for the frontend's rings.</summary>
    InitWait = 2,

    /// <summary>The frontend's rings are there.</summary>
    Initialised = 3,

    /// <summary>In service.</summary>
    Connected = 4,

    /// <summary>Being taken down.</summary>
    Closing = 5,

    /// <summary>Down.</summary>
    Closed = 6,
}

/// <summary>Reading the state of a node.</summary>
internal static class XenbusStates
{
    /// <summary>The state in a node; null for a missing node.</summary>
    public static XenbusState? Parse(string? value) => value switch
    {
        null => null,
        [>= '1' and <= '6'] => (XenbusState)(value[0] - '0'),
        _ => XenbusState.Unknown,
    };

    /// <summary>What a node with the state holds.</summary>
    public static string ToNode(this XenbusState state) =>
        ((int)state).ToString(System.Globalization.CultureInfo.InvariantCulture);
}
