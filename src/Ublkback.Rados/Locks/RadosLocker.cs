namespace Ublkback.Rados.Locks;

/// <summary>Who holds a lock.</summary>
/// <param name="Client">The client of Ceph.</param>
/// <param name="Cookie">By which cookie.</param>
/// <param name="Address">The client's address.</param>
public sealed record RadosLocker(string Client, string Cookie, string Address);
