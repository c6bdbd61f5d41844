namespace Ublkback.Nbd.Protocol;

/// <summary>The other end breaks the protocol, or refuses what is needed. The message is for people.</summary>
internal sealed class NbdException(string message, Exception? cause = null) : IOException(message, cause);
