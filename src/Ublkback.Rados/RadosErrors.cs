namespace Ublkback.Rados;

/// <summary>Error numbers with a meaning of their own (errno.h).</summary>
public static class RadosErrors
{
    /// <summary>ESHUTDOWN: the cluster has shut this client out.</summary>
    public const int ShutOut = 108;

    /// <summary>ECANCELED: what was to be so is not.</summary>
    public const int NotSo = 125;

    /// <summary>EEXIST: it is there already.</summary>
    public const int Exists = 17;
}
